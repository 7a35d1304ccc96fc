#include "cuda/ops_cuda.hpp"

#include <algorithm>
#include <utility>

#include "cuda/rows.hpp"
#include "cuda/sampling.hpp"
#include "cuda/small_copies.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

// From the first element to the last.
std::size_t bytes_of(const Matrix& x) {
  return x.rows == 0 ? 0
                     : static_cast<std::size_t>((x.rows - 1) * x.stride + x.cols) * sizeof(float);
}

struct CudaRecording final : Ops::Recording {
  CudaRecording(std::shared_ptr<Context> c, cudaGraphExec_t g)
      : context(std::move(c)), graph(g), epoch(context->epoch()) {}
  ~CudaRecording() override { context->destroy_graph(graph); }
  std::shared_ptr<Context> context;
  cudaGraphExec_t graph;
  std::int64_t epoch;
};

}  // namespace

OpsCuda::OpsCuda(int device)
    : context_(std::make_shared<Context>(device)),
      downloads_(std::make_shared<Downloads>(context_)),
      choices_(std::make_shared<Choices>(context_)) {}

void OpsCuda::use(std::unique_ptr<MatrixProduct> library) { library_ = std::move(library); }

void OpsCuda::go_without_products(std::string reason) { advice_ = std::move(reason); }

// ---- what is put off
void OpsCuda::flush_norms() {
  for (const Norm& n : std::exchange(norms_, {})) cuda::rms_norm(*context_, n.x, n.w, n.eps, n.y);
}

void OpsCuda::flush_turns() {
  for (const Turn& t : std::exchange(turns_, {})) {
    cuda::rope(*context_, t.x, t.head_dim, t.cos, t.sin);
  }
}

void OpsCuda::flush_act_mul() {
  if (!act_mul_) return;
  const ActMul a = *std::exchange(act_mul_, std::nullopt);
  cuda::act_mul(*context_, a.from, a.act, a.y);
}

void OpsCuda::flush_attention() {
  if (!attention_) return;
  const AttentionCall call = *std::exchange(attention_, std::nullopt);
  cuda::attention(*context_, call, splits_, queries_);
}

void OpsCuda::flush_store() {
  if (!store_) return;
  const Store s = *std::exchange(store_, std::nullopt);
  kv_store(*context_, s.tokens, s.sequences, kv_view(s.shape));
}

void OpsCuda::flush_for_step() {
  if (for_step_.empty()) return;
  const std::vector<std::byte> bytes = std::exchange(for_step_, {});
  context_->upload(bytes.data(), place_for_step_, bytes.size());
}

void OpsCuda::flush_all_but_turns() {
  flush_for_step();
  flush_attention();
  flush_norms();
  flush_act_mul();
  flush_store();
  left_digits_.reset();
}

void OpsCuda::flush() {
  flush_all_but_turns();
  flush_turns();
}

const OpsCuda::Norm* OpsCuda::norm_before(Matrix x) const {
  const bool found = !norms_.empty() && norms_.back().y == x;
  return found ? &norms_.back() : nullptr;
}

bool OpsCuda::turns_before(Matrix k, const AttentionShape& shape) const {
  if (turns_.size() != 2) return false;
  const Turn &q = turns_[0], &turned_k = turns_[1];
  return turned_k.x == k && q.x.rows == k.rows && q.head_dim == shape.head_dim &&
         turned_k.head_dim == shape.head_dim && q.cos == turned_k.cos && q.sin == turned_k.sin &&
         q.x.data != k.data;
}

bool OpsCuda::store_before(Matrix q, std::span<const SequenceRows> sequences,
                           const AttentionShape& shape) const {
  const auto same = [](const SequenceRows& a, const SequenceRows& b) {
    return a.row_begin == b.row_begin && a.rows == b.rows && a.past == b.past &&
           a.blocks.data() == b.blocks.data() && a.blocks.size() == b.blocks.size();
  };
  return store_ && store_->tokens.rotation.q == q && store_->shape == shape &&
         std::ranges::equal(store_->rows, sequences, same) &&
         can_take_tokens(*context_, shape, has_one_row_each(sequences));
}

// ---- weights
bool OpsCuda::can_compute(DataType dtype) const {
  return dtype == DataType::F32 || dtype == DataType::BF16 || dtype == DataType::F16;
}

std::unique_ptr<Weight> OpsCuda::pack(std::span<const Tensor> parts, DataType compute,
                                      const PartPacked& packed) {
  submit();
  return std::make_unique<CudaWeight>(context_, parts, compute, packed);
}

std::unique_ptr<Weight> OpsCuda::pack_quantized(std::span<const QuantizedRows* const> parts,
                                                DataType compute, bool int8_activations,
                                                const RowsPacked& packed) {
  check(!int8_activations,
        "activations=\"int8\" is not supported on CUDA; leave it out: x counts exactly then");
  submit();
  return std::make_unique<CudaWeight>(context_, parts, compute, packed);
}

std::size_t OpsCuda::packed_bytes(std::span<const std::int64_t> outputs, std::int64_t inputs,
                                  DataType kept, const QuantFormat& quant) const {
  return CudaWeight::nbytes_of(outputs, inputs, kept, quant);
}

Tensor OpsCuda::unpack(const Weight& weight, std::size_t part) {
  const Context::Use use(*context_);
  flush();
  return CudaWeight::of(weight).unpack(part);
}

QuantizedMatrix OpsCuda::unpack_quantized(const Weight& weight, std::size_t part) {
  const Context::Use use(*context_);
  flush();
  return CudaWeight::of(weight).unpack_quantized(part);
}

// ---- rows
void OpsCuda::embed(std::span<const std::int64_t> ids, const Weight& table, Matrix y) {
  const Context::Use use(*context_);
  flush();
  if (ids.empty()) return;
  const CudaWeight& rows = CudaWeight::of(table);
  widen_rows(*context_, rows.view(0), rows.order(), plan_.ids(*context_, ids), y);
}

void OpsCuda::rms_norm(Matrix x, const float* w, float eps, Matrix y) {
  const Context::Use use(*context_);
  flush();
  norms_.push_back({x, w, eps, y});
  if (x.data == y.data) flush_norms();
}

void OpsCuda::last_use(Matrix x) {
  const Context::Use use(*context_);
  last_use_ = x;
}

void OpsCuda::give_back() {
  const Context::Use use(*context_);
  flush();
  for (Scratch* buffer : {&rounded_, &slab_, &gate_, &up_, &sum_, &found_, &gathered_, &used_,
                          &sampling_, &queries_, &digits_, &splits_.partial, &splits_.arrived}) {
    context_->drop(*buffer);
  }
  downloads_->give_back();
}

Matrix OpsCuda::kept(Matrix x) const {
  const bool given_up = last_use_ && *last_use_ == x;
  return given_up ? Matrix{nullptr, x.rows, x.cols, x.stride} : x;
}

void OpsCuda::act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) {
  const Context::Use use(*context_);
  flush();
  cuda::act_mul(*context_, gate_up_of(gate, up), act, y);
}

void OpsCuda::add(Matrix x, Matrix y) {
  const Context::Use use(*context_);
  flush();
  cuda::add(*context_, x, y);
}

void OpsCuda::rope(Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) {
  const Context::Use use(*context_);
  flush_all_but_turns();
  if (turns_.size() == 2) flush_turns();
  turns_.push_back({x, head_dim, cos, sin});
}

void OpsCuda::softmax(Matrix x) {
  const Context::Use use(*context_);
  flush();
  cuda::softmax(*context_, x);
}

void OpsCuda::copy(Matrix from, Matrix to) {
  const Context::Use use(*context_);
  flush();
  cuda::copy(*context_, from, to);
}

void OpsCuda::copy_each(std::span<const Matrix> from, std::span<const Matrix> to) {
  const Context::Use use(*context_);
  flush();
  cuda::copy_each(*context_, from, to);
}

std::unique_ptr<Choice> OpsCuda::argmax(Matrix x) {
  const Context::Use use(*context_);
  flush();
  follow_consumers(x.data, bytes_of(x));
  auto choice = std::make_unique<CudaChoice>(choices_, static_cast<std::size_t>(x.rows));
  cuda::argmax(*context_, x, scratch(found_, argmax_bytes(x.rows)), choice->found());
  choice->asked();
  return choice;
}

void OpsCuda::penalize(Matrix x, const Penalties& how, std::span<const UsedToken> used) {
  if (used.empty()) return;
  const Context::Use use(*context_);
  flush();
  std::byte* memory = scratch(used_, used.size_bytes());
  context_->upload(used.data(), memory, used.size_bytes());
  cuda::penalize(*context_, x, how, {reinterpret_cast<const UsedToken*>(memory), used.size()});
}

void OpsCuda::log_probabilities(Matrix x, std::span<const std::int64_t> columns,
                                std::span<float> found) {
  if (found.empty()) return;
  const Context::Use use(*context_);
  flush();
  follow_consumers(x.data, bytes_of(x));
  std::byte* memory = scratch(found_, columns.size_bytes() + found.size_bytes());
  context_->upload(columns.data(), memory, columns.size_bytes());
  auto* on_device = reinterpret_cast<float*>(memory + columns.size_bytes());
  cuda::log_probabilities(*context_, x, reinterpret_cast<const std::int64_t*>(memory), on_device);
  context_->download(on_device, found.data(), found.size_bytes());
}

std::unique_ptr<Choice> OpsCuda::sample(Matrix x, const Sampling& how,
                                        std::span<const double> numbers) {
  if (!can_sample(x)) return nullptr;
  const Context::Use use(*context_);
  flush();
  follow_consumers(x.data, bytes_of(x));
  auto choice = std::make_unique<CudaChoice>(choices_, static_cast<std::size_t>(x.rows));
  std::byte* memory = context_->cleared_scratch(sampling_, sampling_bytes());
  for (std::int64_t first = 0; first < x.rows; first += kSampledRows) {
    const auto count = std::min<std::int64_t>(kSampledRows, x.rows - first);
    const auto own =
        numbers.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    cuda::sample(*context_, x.slice(first, count), how, own, memory, choice->found().from(first));
  }
  choice->asked();
  return choice;
}

// ---- the cache
std::size_t OpsCuda::kv_block_bytes(std::int64_t kv_heads, std::int64_t head_dim,
                                    DataType dtype) const {
  return static_cast<std::size_t>(2 * kv_heads * kv_view(kv_heads, head_dim, dtype).head_bytes);
}

void OpsCuda::kv_write(Matrix k, Matrix v, std::span<const SequenceRows> sequences,
                       const AttentionShape& shape) {
  const Context::Use use(*context_);
  flush_all_but_turns();
  NewTokens tokens{k, v, {}};
  std::optional<Turn> turn_of_q;
  const bool one_row_each = has_one_row_each(sequences);
  if (turns_before(k, shape)) {
    tokens.rotation = {turns_[0].x, turns_[0].cos, turns_[0].sin};
    if (can_rotate(*context_, shape, one_row_each)) {
      tokens.rotation.q = {};
      turn_of_q = turns_[0];
    }
    turns_.clear();
  }
  flush_turns();
  if (k.rows == 0) return;
  const int tile = tile_tokens(*context_, shape, one_row_each);
  store_ = {tokens,
            plan_.sequences(*context_, sequences, tile),
            {sequences.begin(), sequences.end()},
            shape};
  if (!tokens.rotation.is_there() || !can_take_tokens(*context_, shape, one_row_each))
    flush_store();
  if (turn_of_q) turns_.push_back(*turn_of_q);
}

void OpsCuda::attention(Matrix q, std::span<const SequenceRows> sequences,
                        const AttentionShape& shape, Matrix y) {
  const Context::Use use(*context_);
  AttentionCall call;
  const bool one_row_each = has_one_row_each(sequences);
  if (store_before(q, sequences, shape)) {
    call.tokens = store_->tokens;
    store_.reset();
  } else if (turns_.size() == 1 && turns_[0].x == q && can_rotate(*context_, shape, one_row_each)) {
    call.tokens.rotation = {q, turns_[0].cos, turns_[0].sin};
    turns_.clear();
  }
  flush();
  call.q = q;
  call.y = y;
  call.shape = shape;
  call.one_row_each = one_row_each;
  call.tile_tokens = tile_tokens(*context_, shape, call.one_row_each);
  call.sequences = plan_.sequences(*context_, sequences, call.tile_tokens);
  call.tile_count = plan_.tile_count();
  for (const SequenceRows& s : sequences) call.longest = std::max(call.longest, s.past + s.rows);
  attention_ = call;
  if (q.rows <= kFewRows || !can_round(shape) || y.cols % 8 != 0) flush_attention();
}

void OpsCuda::attention_scores(Matrix q, std::span<const SequenceRows> sequences,
                               const AttentionShape& shape, float* scores, std::int64_t keys) {
  const Context::Use use(*context_);
  flush();
  const int tokens = tile_tokens(*context_, shape, has_one_row_each(sequences));
  cuda::attention_scores(*context_, q, plan_.sequences(*context_, sequences, tokens), shape, scores,
                         keys);
}

void OpsCuda::attention_mix(const float* weights, std::int64_t keys,
                            std::span<const SequenceRows> sequences, const AttentionShape& shape,
                            Matrix y) {
  const Context::Use use(*context_);
  flush();
  const int tokens = tile_tokens(*context_, shape, has_one_row_each(sequences));
  cuda::attention_mix(*context_, weights, keys, plan_.sequences(*context_, sequences, tokens),
                      shape, y);
}

// ---- steps and recordings
void OpsCuda::upload_for_step(const void* host, void* to, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  const auto* bytes = static_cast<const std::byte*>(host);
  for_step_.assign(bytes, bytes + nbytes);
  place_for_step_ = to;
}

void OpsCuda::begin_step(std::span<const std::int64_t> ids,
                         std::span<const SequenceRows> sequences) {
  begin_step(ids, sequences, nullptr);
}

void OpsCuda::begin_step(std::span<const std::int64_t> ids, std::span<const SequenceRows> sequences,
                         const std::int64_t* chosen) {
  const Context::Use use(*context_);
  const std::vector<std::byte> bytes = std::exchange(for_step_, {});
  std::vector<Transfer> others;
  if (!bytes.empty()) others.push_back({bytes.data(), place_for_step_, bytes.size()});
  try {
    flush();
    if (!context_->is_recording()) downloads_->tidy();  // which waits for the device
    plan_.begin(*context_, ids, sequences, others, chosen);
  } catch (const Error&) {
    if (!others.empty()) context_->upload(others);  // which may be of another thread's step
    throw;
  }
}

std::unique_ptr<Ops::Recording> OpsCuda::record(const std::function<void()>& body) {
  const Context::Use use(*context_);
  flush();
  try {
    context_->begin_recording();
    body();
    flush();
  } catch (...) {
    norms_.clear();
    turns_.clear();
    attention_.reset();
    act_mul_.reset();
    store_.reset();
    last_use_.reset();
    left_digits_.reset();
    context_->abandon_recording();
    if (context_->lacks_scratch()) return nullptr;
    throw;
  }
  return std::make_unique<CudaRecording>(context_, context_->end_recording());
}

bool OpsCuda::replay(Recording& recording, std::span<const std::int64_t> ids,
                     std::span<const SequenceRows> sequences, Choice* chosen) {
  const std::int64_t* columns = nullptr;
  std::vector<std::int64_t> known;
  if (const auto* own = dynamic_cast<CudaChoice*>(chosen)) {
    if (ids.size_bytes() > kSmallCopy) return false;  // the host would have to wait for them
    columns = own->found().columns;
  } else if (chosen != nullptr) {
    for (const Chosen& c : chosen->wait()) known.push_back(c.column);
    ids = known;
  }
  const Context::Use use(*context_);
  begin_step(ids, sequences, columns);
  auto& r = static_cast<CudaRecording&>(recording);
  if (r.epoch != context_->epoch()) return false;
  context_->launch_graph(r.graph);
  return true;
}

}  // namespace infinilm::cuda
