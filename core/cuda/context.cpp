#include "cuda/context.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#if !defined(INFINILM_CUDA_EMULATED)
#include "cuda/devices.hpp"
#endif
#include "cuda/small_copies.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{1} << 23;

constexpr std::size_t kAlignment = 256;

// Small copies that may be on their way to the device; one more slot is for those from it.
constexpr std::size_t kSmallUploads = 16;
constexpr std::size_t kSmallSlot = kMostTransfers * kSmallCopy;

}  // namespace

void check_cuda(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that does not stay is forgotten, so that the next call is not blamed for it
  throw Error(concat("CUDA: ", what, ": ", cudaGetErrorName(status), " (",
                     cudaGetErrorString(status), ")"));
}

// Pinned memory in pieces: one is filled while others are on their way.
struct Context::Staging {
  static constexpr int kSlots = 4;
  std::byte* memory[kSlots] = {};
  cudaEvent_t gone[kSlots] = {};
  int next = 0;
};

Context::~Context() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (void* memory : freed_while_recording_) cudaFree(memory);
  for (void* memory : scratch_) cudaFree(memory);
  if (small_ != nullptr) cudaFreeHost(small_);
  for (int i = 0; i < Staging::kSlots; ++i) {
    if (staging_->gone[i] != nullptr) cudaEventDestroy(staging_->gone[i]);
    if (staging_->memory[i] != nullptr) cudaFreeHost(staging_->memory[i]);
  }
  if (order_ != nullptr) cudaEventDestroy(order_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

std::byte* Context::scratch(Scratch& buffer, std::size_t nbytes) {
  if (nbytes <= buffer.size_) {
    if (recording_) buffer.is_recorded_ = true;
    return buffer.data_;
  }
  lacks_scratch_ = recording_;
  check<Error>(!recording_, "CUDA: a recording needs ", nbytes,
               " bytes of scratch memory that are not there");
  std::size_t size = std::max(nbytes, buffer.size_ + buffer.size_ / 2);
  drop(buffer);
  void* memory = nullptr;
  try {
    memory = allocate(size);
  } catch (const OutOfMemory&) {
    if (size == nbytes) throw;
    size = nbytes;
    memory = allocate(size);
  }
  scratch_.push_back(memory);
  buffer.data_ = static_cast<std::byte*>(memory);
  buffer.size_ = size;
  return buffer.data_;
}

void Context::drop(Scratch& buffer) noexcept {
  if (buffer.data_ == nullptr) return;
  std::erase(scratch_, buffer.data_);
  free(buffer.data_);
  if (std::exchange(buffer.is_recorded_, false)) ++epoch_;
  buffer.data_ = nullptr;
  buffer.size_ = 0;
}

std::byte* Context::cleared_scratch(Scratch& buffer, std::size_t nbytes) {
  const std::byte* before = buffer.data_;
  const std::size_t size = buffer.size_;
  std::byte* memory = scratch(buffer, nbytes);
  if (memory != before || buffer.size_ != size) {
    check_cuda(cudaMemsetAsync(memory, 0, buffer.size_, stream_), "clearing memory");
  }
  return memory;
}

void Context::copy_bytes(const void* from, void* to, std::size_t nbytes) {
  if (nbytes == 0) return;
  check_cuda(cudaMemcpyAsync(to, from, nbytes, cudaMemcpyDeviceToDevice, stream_),
             concat("copying ", nbytes, " bytes within the device"));
}

void Context::download(const void* from, void* to, std::size_t nbytes) {
  if (nbytes == 0) return synchronize();
  if (!is_small_copy(from, nbytes)) {
    check_cuda(cudaMemcpyAsync(to, from, nbytes, cudaMemcpyDeviceToHost, stream_),
               concat("copying ", nbytes, " bytes from the device"));
    return synchronize();
  }
  std::byte* memory = small_memory(kSmallUploads);
  const Transfer transfer = {from, memory, nbytes};
  copy_small(*this, std::span(&transfer, 1));
  synchronize();
  std::memcpy(to, memory, nbytes);
}

std::byte* Context::small_memory(std::size_t slot) {
  if (small_ == nullptr) {
    check_cuda(cudaMallocHost(&small_, (kSmallUploads + 1) * kSmallSlot),
               "allocating pinned memory");
  }
  return static_cast<std::byte*>(small_) + slot * kSmallSlot;
}

void Context::upload(std::span<const Transfer> transfers) {
  check<Error>(!recording_, "CUDA: something new was sent to the device while recording");
  std::vector<Transfer> small;
  for (const Transfer& transfer : transfers) {
    if (transfer.nbytes == 0) continue;
    if (small.size() < kMostTransfers && is_small_copy(transfer.to, transfer.nbytes)) {
      small.push_back(transfer);
    } else {
      upload_staged(transfer);
    }
  }
  if (!small.empty()) upload_small(std::move(small));
}

void Context::upload_small(std::vector<Transfer> transfers) {
  if (small_uploads_ - small_arrived_ == kSmallUploads) synchronize();
  std::byte* memory = small_memory(small_uploads_ % kSmallUploads);
  for (Transfer& transfer : transfers) {
    if (transfer.by_device) continue;
    std::memcpy(memory, transfer.from, transfer.nbytes);
    transfer.from = memory;
    memory += kSmallCopy;
  }
  copy_small(*this, transfers);
  ++small_uploads_;
  begins_alone_ = true;  // kernels read the plan of a step before they wait
}

void Context::synchronize() {
  check_cuda(cudaStreamSynchronize(stream_), "waiting for the device");
  uploads_arrived(small_uploads_);
}

void Context::uploads_arrived(std::uint64_t count) noexcept {
  std::uint64_t known = small_arrived_;
  while (known < count && !small_arrived_.compare_exchange_weak(known, count)) continue;
}

#if defined(INFINILM_CUDA_EMULATED)

Context::Context(int device)
    : device_(device),
      multiprocessors_(3),
      shared_limit_(emulation::shared_limit()),
      has_wide_products_(shared_limit_ == emulation::kSharedLimit),
      staging_(new Staging) {
  cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
}
void Context::enter() const {}
bool Context::can_record() noexcept { return false; }
void* Context::try_allocate(std::size_t nbytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, nbytes) == cudaSuccess ? memory : nullptr;
}
void* Context::allocate(std::size_t nbytes) { return try_allocate(nbytes); }
Room Context::room() const { return {}; }
void Context::free(void* memory) noexcept { cudaFreeAsync(memory, stream_); }
void Context::upload_staged(const Transfer& transfer) {
  const auto* bytes = static_cast<const std::byte*>(transfer.from);
  emulation::put(stream_, [to = transfer.to, values = std::vector(bytes, bytes + transfer.nbytes)] {
    if (!values.empty()) std::memcpy(to, values.data(), values.size());
  });
}
void Context::begin_recording() { throw Error("CUDA: the emulation records nothing"); }
cudaGraphExec_t Context::end_recording() { return nullptr; }
void Context::abandon_recording() noexcept {}
void Context::launch_graph(cudaGraphExec_t) {}
void Context::destroy_graph(cudaGraphExec_t) noexcept {}
void Context::let_wait(std::uintptr_t) { synchronize(); }
void Context::catch_up(std::uintptr_t) {}

#else

namespace {

cudaMemPool_t default_pool(int device) {
  cudaMemPool_t pool = nullptr;
  check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "opening the memory pool");
  return pool;
}

}  // namespace

Context::Context(int device) : device_(device), staging_(new Staging) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "counting the devices");
  check<Error>(device >= 0 && device < count, "there is no device \"cuda:", device,
               "\": this machine has ", count);
  enter();
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "reading the device's attributes");
    return value;
  };
  const int major = attribute(cudaDevAttrComputeCapabilityMajor);
  const int minor = attribute(cudaDevAttrComputeCapabilityMinor);
  check<Error>(major >= 8, "device \"cuda:", device,
               "\": expected compute capability 8.0 or newer (Ampere), found ", major, '.', minor);
  overlaps_ = code_version() >= 90;  // only such code waits for the previous kernel by itself
  has_wide_products_ = major == 9 && overlaps_;
  has_own_memory_ = attribute(cudaDevAttrIntegrated) == 0 && !std::filesystem::exists("/dev/dxg");
  multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount);
  shared_limit_ = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  const int of_all = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const int reserved = attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  shared_for_one_ = static_cast<std::size_t>(of_all / 2 - reserved) + 1;
  // Memory that was freed stays in the pool: steps ask for the same sizes again and again.
  std::uint64_t keep = ~std::uint64_t{0};
  check_cuda(cudaMemPoolSetAttribute(default_pool(device), cudaMemPoolAttrReleaseThreshold, &keep),
             "setting up the memory pool");
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  check_cuda(cudaEventCreateWithFlags(&order_, cudaEventDisableTiming), "making an event");
}

bool Context::can_record() noexcept { return true; }

void Context::enter() const { check_cuda(cudaSetDevice(device_), "choosing the device"); }

void* Context::try_allocate(std::size_t nbytes) {
  void* memory = nullptr;
  // A recording must own no memory: what it uses lives on outside.
  const cudaError_t status =
      recording_ ? cudaMalloc(&memory, nbytes) : cudaMallocAsync(&memory, nbytes, stream_);
  if (status == cudaSuccess) {
    if (recording_) {
      const std::lock_guard lock(memory_mutex_);
      plain_.insert(memory);
    }
    return memory;
  }
  if (status != cudaErrorMemoryAllocation) check_cuda(status, "allocating memory");
  cudaGetLastError();
  return nullptr;
}

void* Context::allocate(std::size_t nbytes) {
  nbytes = std::max<std::size_t>((nbytes + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
  void* memory = try_allocate(nbytes);
  if (memory == nullptr && !recording_) {
    // What the pool keeps may lie in pieces, or wait for a copy to the host: give it back, and try once more.
    check_cuda(cudaDeviceSynchronize(), "waiting for the device");
    check_cuda(cudaMemPoolTrimTo(default_pool(device_), 0), "giving unused memory back");
    memory = try_allocate(nbytes);
  }
  if (memory != nullptr) return memory;
  throw out_of_memory(Device(DeviceType::CUDA, device_), nbytes, room());
}

Room Context::room() const {
  Room room;
  check_cuda(cudaMemGetInfo(&room.free, &room.total), "asking for free memory");
  const cudaMemPool_t pool = default_pool(device_);
  std::uint64_t reserved = 0, used = 0;
  check_cuda(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved),
             "asking what the memory pool keeps");
  check_cuda(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used),
             "asking what is used of the memory pool");
  room.free += static_cast<std::size_t>(reserved - std::min(used, reserved));
  return room;
}

void Context::free(void* memory) noexcept {
  if (memory == nullptr) return;
  const OnDevice here(device_);
  // Held while it is freed, so that no recording begins in between and takes it for its own.
  const std::lock_guard lock(memory_mutex_);
  if (recording_) {
    freed_while_recording_.push_back(memory);
  } else if (plain_.erase(memory) > 0) {
    cudaFree(memory);
  } else {
    // An error here (a lost device) will be met again by whoever uses the device next.
    cudaFreeAsync(memory, stream_);
  }
}

void Context::upload_staged(const Transfer& transfer) {
  Staging& s = *staging_;
  for (std::size_t begin = 0; begin < transfer.nbytes; begin += kStagingBytes) {
    const std::size_t count = std::min(kStagingBytes, transfer.nbytes - begin);
    const int slot = s.next;
    s.next = (slot + 1) % Staging::kSlots;
    if (s.memory[slot] == nullptr) {
      void* memory = nullptr;
      check_cuda(cudaMallocHost(&memory, kStagingBytes), "allocating pinned memory");
      s.memory[slot] = static_cast<std::byte*>(memory);
      check_cuda(cudaEventCreateWithFlags(&s.gone[slot], cudaEventDisableTiming),
                 "making an event");
    } else {
      check_cuda(cudaEventSynchronize(s.gone[slot]), "waiting for a copy");
    }
    std::memcpy(s.memory[slot], static_cast<const std::byte*>(transfer.from) + begin, count);
    std::byte* const place = static_cast<std::byte*>(transfer.to) + begin;
    check_cuda(cudaMemcpyAsync(place, s.memory[slot], count, cudaMemcpyHostToDevice, stream_),
               concat("copying ", count, " bytes to the device"));
    check_cuda(cudaEventRecord(s.gone[slot], stream_), "recording an event");
  }
}

// The default streams are named by small numbers, others by their address.
void Context::let_wait(std::uintptr_t stream) {
  check_cuda(cudaEventRecord(order_, stream_), "recording an event");
  check_cuda(cudaStreamWaitEvent(reinterpret_cast<cudaStream_t>(stream), order_, 0),
             "letting a stream wait");
}

void Context::catch_up(std::uintptr_t stream) {
  if (stream != kLegacy) {
    check_cuda(cudaDeviceSynchronize(), "waiting for the device");
    return;
  }
  check_cuda(cudaEventRecord(order_, reinterpret_cast<cudaStream_t>(stream)), "recording an event");
  check_cuda(cudaStreamWaitEvent(stream_, order_, 0), "waiting for a stream");
}

void Context::begin_recording() {
  {
    const std::lock_guard lock(memory_mutex_);
    recording_ = true;
  }
  lacks_scratch_ = false;
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed),
             "beginning to record a graph");
}

cudaGraphExec_t Context::end_recording() {
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  abandon_recording();
  check_cuda(ended, "recording a graph");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(made, "instantiating a graph");
  return executable;
}

void Context::abandon_recording() noexcept {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream_, &status) != cudaSuccess ||
      status != cudaStreamCaptureStatusNone) {
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  std::vector<void*> freed;
  {
    const std::lock_guard lock(memory_mutex_);
    recording_ = false;
    freed.swap(freed_while_recording_);
  }
  for (void* memory : freed) free(memory);
}

void Context::launch_graph(cudaGraphExec_t graph) {
  begins_alone_ = false;  // as every graph does
  check_cuda(cudaGraphLaunch(graph, stream_), "launching a graph");
}

void Context::destroy_graph(cudaGraphExec_t graph) noexcept {
  const std::lock_guard lock(mutex_);  // waiting would end what another thread records
  cudaStreamSynchronize(stream_);
  cudaGraphExecDestroy(graph);
}

// Kernels run beside each other on a multiprocessor only if it divides its memory in the same way for both.
void Context::prepare_kernel(const void* kernel, std::size_t shared) {
  constexpr std::size_t kAlwaysThere = 48 * 1024;
  const auto [place, is_new] = shared_limits_.try_emplace(kernel, kAlwaysThere);
  if (is_new) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                    cudaSharedmemCarveoutMaxShared),
               "choosing how much memory is shared memory");
  }
  // Static shared memory counts too: ask early.
  if (shared + 4096 <= place->second) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared)),
             concat("asking for ", shared, " bytes of shared memory"));
  place->second = shared + 4096;
}

void Context::check_launch(cudaError_t status) {
  check_cuda(status, "launching a kernel");
#if !defined(NDEBUG)
  if (!recording_) check_cuda(cudaStreamSynchronize(stream_), "running a kernel");
#endif
}

#endif

}  // namespace infinilm::cuda
