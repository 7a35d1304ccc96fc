// One device as the operations use it: its stream, its memory, its launches. Every call of the runtime is checked here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(INFINILM_CUDA_EMULATED)
#include "cuda/tests/emulation.hpp"
#else
#include <cuda_runtime.h>
#endif

#include "base/device_memory.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm::cuda {

// Throws Error with the error's name, its text and what was being done.
void check_cuda(cudaError_t status, std::string_view what);

// The calling thread's device for a scope, without a word about errors: whoever lets go of something can do nothing about them.
class OnDevice {
 public:
  explicit OnDevice(int device) noexcept : device_(device) {
    cudaGetDevice(&before_);
    if (before_ != device_) cudaSetDevice(device_);
  }
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int device_, before_ = 0;
};

// Memory of the device that grows when it must; what was in it is lost then. Freed by its context.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  friend class Context;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool is_recorded_ = false;  // some recording uses it
};

// What is to be copied, and where to.
struct Transfer {
  const void* from;
  void* to;
  std::size_t nbytes;
  bool by_device = false;  // page-locked memory of a few words, read by the device in its turn
};

// Partial results of blocks of threads that share a piece of work, and how many have come.
struct SplitMemory {
  Scratch partial;
  Scratch arrived;  // zero between operations
};

class Context {
 public:
  // Makes the stream. Throws Error where the device is missing or too old (sm_80 is asked for).
  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int device() const noexcept { return device_; }
  cudaStream_t stream() const noexcept { return stream_; }
  int multiprocessors() const noexcept { return multiprocessors_; }
  // The most shared memory that one block can have.
  std::size_t shared_limit() const noexcept { return shared_limit_; }
  // Whether four warps can multiply together (wgmma): on Hopper, if what runs was compiled for it.
  bool has_wide_products() const noexcept { return has_wide_products_; }
  // With so much, no two blocks of a kernel are on one multiprocessor.
  std::size_t shared_for_one() const noexcept { return shared_for_one_; }

  // What everything that follows happens under: nobody else is within, and this is the calling thread's device. Nobody may call
  // out, to a language for instance, while it is held.
  class Use {
   public:
    explicit Use(Context& context) : lock_(context.mutex_) { context.enter(); }

   private:
    std::lock_guard<std::recursive_mutex> lock_;
  };

  // Memory of the device, 256-byte aligned, not initialised; ordered with the stream. OutOfMemory if there is not enough.
  void* allocate(std::size_t nbytes);
  // The same without waiting for what others will give back; null if there is not enough.
  void* try_allocate(std::size_t nbytes);
  // What is free, together with what the pool keeps and nobody uses.
  Room room() const;
  // Neither the host's, whose system may find more by letting go of files, nor spilt into it by the system (WSL).
  bool has_own_memory() const noexcept { return has_own_memory_; }
  void free(void* memory) noexcept;
  // At least `nbytes` of a scratch buffer. Two operations on the stream can share one. Grows only outside of recordings.
  std::byte* scratch(Scratch& buffer, std::size_t nbytes);
  void drop(Scratch& buffer) noexcept;
  // The same, with zeros where it is new.
  std::byte* cleared_scratch(Scratch& buffer, std::size_t nbytes);
  // Changes whenever a scratch buffer that some recording uses has moved: what was recorded before then must not run again.
  std::int64_t epoch() const noexcept { return epoch_; }

  // Host to device, ordered with the stream; `from` may change on return.
  void upload(const void* from, void* to, std::size_t nbytes) {
    const Transfer transfer = {from, to, nbytes};
    upload(std::span(&transfer, 1));
  }
  // Small transfers go over together.
  void upload(std::span<const Transfer> transfers);
  // How many small uploads have been asked for; whoever knows that so many have been done says so.
  std::uint64_t uploads() const noexcept { return small_uploads_; }
  void uploads_arrived(std::uint64_t count) noexcept;
  // Device to host; done on return.
  void download(const void* from, void* to, std::size_t nbytes);
  void copy_bytes(const void* from, void* to, std::size_t nbytes);
  void synchronize();
  // Order with another stream, by DLPack's numbers.
  void let_wait(std::uintptr_t stream);
  void catch_up(std::uintptr_t stream);
  // The default stream that all threads share: the one that is certainly still there.
  static constexpr std::uintptr_t kLegacy = 1;

  static bool can_record() noexcept;
  // Between these two, launches are recorded and not run. `end_recording` gives an executable graph.
  void begin_recording();
  cudaGraphExec_t end_recording();
  bool is_recording() const noexcept { return recording_; }
  // Whether the last recording was given up since a scratch buffer would have had to grow.
  bool lacks_scratch() const noexcept { return lacks_scratch_; }
  // Leaves a recording that failed.
  void abandon_recording() noexcept;
  void launch_graph(cudaGraphExec_t graph);
  void destroy_graph(cudaGraphExec_t graph) noexcept;

  // Runs a kernel on the stream; nothing for an empty grid.
  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared,
              Arguments&&... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#if defined(INFINILM_CUDA_EMULATED)
    const std::tuple<Parameters...> own(static_cast<Parameters>(arguments)...);
    emulation::put(stream_, [=] {
      emulation::run_grid(grid, dim3(static_cast<unsigned>(threads)), shared,
                          [&] { std::apply(kernel, own); });
    });
#else
    prepare_kernel(reinterpret_cast<const void*>(kernel), shared);
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared;
    config.stream = stream_;
    config.attrs = &early;
    const bool is_alone = !recording_ && std::exchange(begins_alone_, false);
    config.numAttrs = overlaps_ && !is_alone ? 1 : 0;
    check_launch(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
#endif
  }

 private:
  struct Staging;
  void upload_small(std::vector<Transfer> transfers);
  void upload_staged(const Transfer& transfer);
  std::byte* small_memory(std::size_t slot);
  void enter() const;
  void check_launch(cudaError_t status);
  void prepare_kernel(const void* kernel, std::size_t shared);

  std::recursive_mutex mutex_;
  int device_;
  cudaStream_t stream_ = nullptr;
  int multiprocessors_ = 1;
  std::size_t shared_limit_ = 0;
  std::size_t shared_for_one_ = 0;
  bool has_own_memory_ = false;
  bool has_wide_products_ = false;
  bool overlaps_ = false;      // a kernel may start before the previous one has ended,
  bool begins_alone_ = false;  // but for the next one: it may read at once what was uploaded
  std::atomic<bool> recording_ = false;
  bool lacks_scratch_ = false;
  std::int64_t epoch_ = 0;
  cudaEvent_t order_ = nullptr;
  void* small_ = nullptr;                         // pinned, for small copies: see small_memory
  std::uint64_t small_uploads_ = 0;               // so far,
  std::atomic<std::uint64_t> small_arrived_ = 0;  // and how many of them have certainly been done
  std::unordered_map<const void*, std::size_t> shared_limits_;  // of kernels that have run
  std::unique_ptr<Staging> staging_;
  std::mutex memory_mutex_;
  std::vector<void*> freed_while_recording_;
  std::set<void*> plain_;       // allocated while recording: not of the pool
  std::vector<void*> scratch_;  // of all scratch buffers
};

}  // namespace infinilm::cuda
