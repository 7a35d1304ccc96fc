// A CUDA plug-in without CUDA, for tests: "cuda:0" and "cuda:1" are the CPU's operations on memory that the host cannot touch
// but inside of them. Whoever takes a pointer of the device for one of the host's crashes. INFINILM_CUDA_PLUGIN names it.
// INFINILM_TEST_DEVICE_BYTES, read whenever memory is asked for, says how much the devices have together;
// INFINILM_TEST_ARRIVAL_MS, read whenever somebody waits for a copy, how long it then takes.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/device_memory.hpp"
#include "base/live_buffers.hpp"
#include "cpu/ops_cpu.hpp"
#include "generate/sampler.hpp"
#include "infinilm/error.hpp"
#include "ops/cuda_plugin.hpp"

namespace infinilm {
namespace {

constexpr int kDevices = 2;

std::size_t device_bytes() {
  const char* chosen = std::getenv("INFINILM_TEST_DEVICE_BYTES");
  return chosen ? std::stoull(chosen) : std::size_t{1} << 28;
}

// All memory of all devices: closed, but while somebody works inside.
class Vault {
 public:
  void* open_new(std::size_t nbytes) {
    const std::lock_guard lock(mutex_);
    void* memory = ::mmap(nullptr, nbytes, inside_ > 0 ? kOpen : PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check<Error>(memory != MAP_FAILED, "the system has no ", nbytes, " bytes");
    areas_[memory] = nbytes;
    return memory;
  }
  void drop(void* memory) {
    const std::lock_guard lock(mutex_);
    ::munmap(memory, areas_.at(memory));
    areas_.erase(memory);
  }
  void enter() {
    const std::lock_guard lock(mutex_);
    if (inside_++ == 0) protect(kOpen);
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    if (--inside_ == 0) protect(PROT_NONE);
  }

 private:
  static constexpr int kOpen = PROT_READ | PROT_WRITE;
  void protect(int how) {
    for (const auto& [memory, nbytes] : areas_) ::mprotect(memory, nbytes, how);
  }

  std::mutex mutex_;
  int inside_ = 0;
  std::map<void*, std::size_t> areas_;
};

Vault& vault() {
  static auto* v = new Vault;
  return *v;
}

// A part of what the devices have, for as long as this lives.
class Share {
 public:
  Share(const Device& device, std::size_t nbytes) : nbytes_(nbytes) {
    const std::size_t before = taken.fetch_add(nbytes);
    const Room room = left_of(before);
    if (nbytes <= room.free) return;
    taken -= nbytes;
    throw out_of_memory(device, nbytes, room);
  }
  ~Share() { taken -= nbytes_; }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  static Room left() { return left_of(taken); }

 private:
  static Room left_of(std::size_t used) {
    const std::size_t total = device_bytes();
    return {total - std::min(total, used), total};
  }
  static inline std::atomic<std::size_t> taken = 0;

  std::size_t nbytes_;
};

// The CPU's weight, which counts as the device's memory.
class GuardedWeight final : public Weight {
 public:
  GuardedWeight(std::unique_ptr<Share> share, std::unique_ptr<Weight> weight)
      : share_(std::move(share)), weight_(std::move(weight)) {}
  std::int64_t inputs() const override { return weight_->inputs(); }
  std::size_t parts() const override { return weight_->parts(); }
  std::int64_t outputs(std::size_t part) const override { return weight_->outputs(part); }
  DataType dtype() const override { return weight_->dtype(); }
  const QuantFormat& quant() const override { return weight_->quant(); }
  std::span<const std::int32_t> input_order() const override { return weight_->input_order(); }
  std::size_t nbytes() const override { return weight_->nbytes(); }

  static const Weight& inner(const Weight& weight) {
    return *static_cast<const GuardedWeight&>(weight).weight_;
  }

 private:
  std::unique_ptr<Share> share_;
  std::unique_ptr<Weight> weight_;
};

struct Inside {
  Inside() { vault().enter(); }
  ~Inside() { vault().leave(); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

using Ids = std::span<const std::int64_t>;
using Sequences = std::span<const SequenceRows>;
using Call = std::function<void(Ids, Sequences)>;

// Steps that were run before the host knew their ids.
std::atomic<std::int64_t> steps_ahead = 0;

struct Calls final : Ops::Recording {
  std::vector<Call> list;
  std::size_t most_blocks = 0;
};

std::size_t most_blocks(Sequences sequences) {
  std::size_t most = 0;
  for (const SequenceRows& s : sequences) most = std::max(most, s.blocks.size());
  return most;
}

// By the host's sampler.
Chosen sample_row(Logits row, const Sampling& how, double number) {
  Chosen found;
  found.largest = *std::max_element(row.begin(), row.end());
  const bool has_nan = std::any_of(row.begin(), row.end(), [](float x) { return std::isnan(x); });
  if (has_nan) found.largest = std::nanf("");
  if (!std::isfinite(found.largest)) return found;
  GenerationConfig config;
  config.temperature = how.temperature;
  config.top_k = static_cast<std::size_t>(how.top_k);
  config.top_p = how.top_p;
  config.min_p = how.min_p;
  found.column = draw(candidates(row, config), number);
  return found;
}

class GuardedOps final : public Ops {
 public:
  explicit GuardedOps(int index) : cpu_(cpu::kernels()), index_(index) {}

  Device device() const override { return Device(DeviceType::CUDA, index_); }
  std::shared_ptr<Buffer> allocate(std::size_t nbytes) override {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    // One page more: vector kernels may load what lies behind the end.
    auto share = std::make_shared<Share>(device(), nbytes);
    void* memory = vault().open_new((nbytes + page - 1) / page * page + page);
    std::shared_ptr<void> owner(memory, [share](void* p) { vault().drop(p); });
    return std::make_shared<Buffer>(memory, nbytes, device(), std::move(owner));
  }
  std::optional<Room> room() override { return Share::left(); }
  void upload(const void* host, void* to, std::size_t n) override {
    now()->copy_bytes(host, to, n);
  }
  void download(const void* from, void* host, std::size_t n) override {
    now()->copy_bytes(from, host, n);
  }
  // As late as can be: 0xff until somebody waits, then what was there at the call.
  std::shared_ptr<Buffer> download_later(const void* from, std::size_t n) override {
    const std::shared_ptr<Buffer> values = DeviceMemory::download_later(from, n);
    const std::shared_ptr<Buffer> host = Buffer::host(n);
    std::memset(host->data(), 0xff, n);
    return std::make_shared<Buffer>(host->data(), n, host, [=] {
      if (const char* ms = std::getenv("INFINILM_TEST_ARRIVAL_MS")) {
        std::this_thread::sleep_for(std::chrono::milliseconds(std::stoi(ms)));
      }
      std::memcpy(host->data(), values->data(), n);
    });
  }
  void copy_bytes(const void* from, void* to, std::size_t n) override {
    now()->copy_bytes(from, to, n);
  }
  void synchronize() override {}
  void* stream() override { return this; }  // nobody looks into it
  bool can_compute(DataType dtype) const override { return cpu_.can_compute(dtype); }

  std::unique_ptr<Weight> pack(std::span<const Tensor> parts, DataType compute,
                               const PartPacked& packed) override {
    std::vector<std::int64_t> outputs;
    for (const Tensor& part : parts) outputs.push_back(part.shape()[0]);
    const DataType kept = compute == DataType::F32 ? parts.front().dtype() : compute;
    auto share = share_of(outputs, parts.front().shape()[1], kept, {});
    return std::make_unique<GuardedWeight>(std::move(share), cpu_.pack(parts, compute, packed));
  }
  std::unique_ptr<Weight> pack_quantized(std::span<const QuantizedRows* const> parts,
                                         DataType compute, bool int8_activations,
                                         const RowsPacked& packed) override {
    std::vector<std::int64_t> outputs;
    for (const QuantizedRows* part : parts) outputs.push_back(part->outputs());
    const QuantizedRows& first = *parts.front();
    auto share = share_of(outputs, first.inputs(), DataType::F32, first.format());
    return std::make_unique<GuardedWeight>(
        std::move(share), cpu_.pack_quantized(parts, compute, int8_activations, packed));
  }
  std::size_t packed_bytes(std::span<const std::int64_t> outputs, std::int64_t inputs,
                           DataType kept, const QuantFormat& quant) const override {
    return cpu_.packed_bytes(outputs, inputs, kept, quant);
  }
  Tensor unpack(const Weight& weight, std::size_t part) override {
    return cpu_.unpack(GuardedWeight::inner(weight), part);
  }
  QuantizedMatrix unpack_quantized(const Weight& weight, std::size_t part) override {
    return cpu_.unpack_quantized(GuardedWeight::inner(weight), part);
  }
  std::size_t kv_block_bytes(std::int64_t kv_heads, std::int64_t head_dim,
                             DataType dtype) const override {
    return cpu_.kv_block_bytes(kv_heads, head_dim, dtype);
  }

  void embed(Ids ids, const Weight& table, Matrix y) override {
    perform(ids, {}, [this, &inner = GuardedWeight::inner(table), y](Ids of_step, Sequences) {
      cpu_.embed(of_step, inner, y);
    });
  }
  void rms_norm(Matrix x, const float* w, float eps, Matrix y) override {
    perform([=, this](Ids, Sequences) { cpu_.rms_norm(x, w, eps, y); });
  }
  void linear(Matrix x, const Weight& w, std::span<const float* const> bias,
              std::span<const Matrix> y, const std::optional<Matrix>& residual) override {
    perform([this, x, &inner = GuardedWeight::inner(w), b = std::vector(bias.begin(), bias.end()),
             outputs = std::vector(y.begin(), y.end()),
             residual](Ids, Sequences) { cpu_.linear(x, inner, b, outputs, residual); });
  }
  void linear_act_mul(Matrix x, const Weight& w, std::span<const float* const> bias, HiddenAct act,
                      Matrix y) override {
    perform([this, x, &inner = GuardedWeight::inner(w), b = std::vector(bias.begin(), bias.end()),
             act, y](Ids, Sequences) { cpu_.linear_act_mul(x, inner, b, act, y); });
  }
  void act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) override {
    perform([=, this](Ids, Sequences) { cpu_.act_mul(gate, up, act, y); });
  }
  void add(Matrix x, Matrix y) override {
    perform([=, this](Ids, Sequences) { cpu_.add(x, y); });
  }
  void rope(Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) override {
    perform([=, this](Ids, Sequences) { cpu_.rope(x, head_dim, cos, sin); });
  }
  void kv_write(Matrix k, Matrix v, Sequences sequences, const AttentionShape& shape) override {
    perform({}, sequences,
            [=, this](Ids, Sequences of_step) { cpu_.kv_write(k, v, of_step, shape); });
  }
  void attention(Matrix q, Sequences sequences, const AttentionShape& shape, Matrix y) override {
    perform({}, sequences,
            [=, this](Ids, Sequences of_step) { cpu_.attention(q, of_step, shape, y); });
  }
  void attention_scores(Matrix q, Sequences sequences, const AttentionShape& shape, float* scores,
                        std::int64_t keys) override {
    now()->attention_scores(q, sequences, shape, scores, keys);
  }
  void softmax(Matrix x) override { now()->softmax(x); }
  void attention_mix(const float* weights, std::int64_t keys, Sequences sequences,
                     const AttentionShape& shape, Matrix y) override {
    now()->attention_mix(weights, keys, sequences, shape, y);
  }
  void copy(Matrix from, Matrix to) override {
    perform([=, this](Ids, Sequences) { cpu_.copy(from, to); });
  }
  std::unique_ptr<DeviceLimits> limits(std::size_t nbytes) override { return cpu_.limits(nbytes); }
  std::unique_ptr<Choice> argmax(Matrix x) override { return now()->argmax(x); }
  void log_probabilities(Matrix x, std::span<const std::int64_t> columns,
                         std::span<float> found) override {
    now()->log_probabilities(x, columns, found);
  }
  void penalize(Matrix x, const Penalties& how, std::span<const UsedToken> used) override {
    now()->penalize(x, how, used);
  }
  std::unique_ptr<Choice> sample(Matrix x, const Sampling& how,
                                 std::span<const double> numbers) override {
    const Inside inside;
    std::vector<Chosen> found;
    for (std::int64_t r = 0; r < x.rows; ++r) {
      found.push_back(sample_row({x.row(r), static_cast<std::size_t>(x.cols)}, how,
                                 numbers[static_cast<std::size_t>(r)]));
    }
    return std::make_unique<KnownChoice>(std::move(found));
  }

  bool can_record() const override { return true; }
  std::unique_ptr<Recording> record(const std::function<void()>& body) override {
    auto calls = std::make_unique<Calls>();
    recording = calls.get();
    try {
      body();
    } catch (...) {
      recording = nullptr;
      throw;
    }
    recording = nullptr;
    return calls;
  }
  // Good for one number of blocks only, so that recordings are seen to grow stale.
  bool replay(Recording& recorded, Ids ids, Sequences sequences, Choice* chosen) override {
    const auto& calls = static_cast<const Calls&>(recorded);
    if (most_blocks(sequences) != calls.most_blocks) return false;
    std::vector<std::int64_t> own(ids.begin(), ids.end());
    if (chosen != nullptr) {
      ++steps_ahead;
      std::ranges::transform(chosen->wait(), own.begin(), [](const Chosen& c) { return c.column; });
    }
    const Inside inside;
    for (const Call& call : calls.list) call(own, sequences);
    return true;
  }

 private:
  static inline thread_local Calls* recording = nullptr;

  std::unique_ptr<Share> share_of(std::span<const std::int64_t> outputs, std::int64_t inputs,
                                  DataType kept, const QuantFormat& quant) const {
    return std::make_unique<Share>(device(), packed_bytes(outputs, inputs, kept, quant));
  }

  void perform(Call call) { perform({}, {}, std::move(call)); }
  void perform(Ids ids, Sequences sequences, Call call) {
    if (recording) {
      recording->most_blocks = std::max(recording->most_blocks, most_blocks(sequences));
      recording->list.push_back(std::move(call));
      return;
    }
    const Inside inside;
    call(ids, sequences);
  }

  // The CPU's operations, with the memory open until the end of the statement.
  class Open {
   public:
    explicit Open(cpu::OpsCpu& ops) : ops_(ops) {
      check<Error>(recording == nullptr, "this operation cannot be recorded");
    }
    cpu::OpsCpu* operator->() { return &ops_; }

   private:
    Inside inside_;
    cpu::OpsCpu& ops_;
  };
  Open now() { return Open(cpu_); }

  cpu::OpsCpu cpu_;
  int index_;
};

std::vector<CudaDevice> devices() {
  std::vector<CudaDevice> found;
  for (int i = 0; i < kDevices; ++i)
    found.push_back({i, concat("guarded memory ", i), "0.0", device_bytes()});
  return found;
}

std::shared_ptr<Ops> open_device(int index) {
  check<Error>(index < kDevices, "this machine has ", kDevices,
               " CUDA devices, from \"cuda:0\" on");
  return std::make_shared<GuardedOps>(index);
}

constexpr CudaPlugin kPlugin = {INFINILM_PLUGIN_ABI, count_live_buffers_in, devices, open_device,
                                [](const std::string&) {}};

}  // namespace

std::shared_ptr<DeviceMemory> device_memory(const Device& device) {
  throw Error(concat("the plug-in was asked for the memory of ", device.str()));
}

}  // namespace infinilm

extern "C" [[gnu::visibility("default")]] const infinilm::CudaPlugin* infinilm_cuda_plugin() {
  return &infinilm::kPlugin;
}
// So far, for tests.
extern "C" [[gnu::visibility("default")]] std::int64_t infinilm_steps_ahead() {
  return infinilm::steps_ahead;
}
