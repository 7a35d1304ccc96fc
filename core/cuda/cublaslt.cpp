#include "cuda/cublaslt.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <string_view>

#include "cuda/context.hpp"
#include "cuda/cublaslt_api.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

constexpr const char* kFileName = "libcublasLt.so.13";
constexpr const char* kVariable = "INFINILM_CUBLASLT";
// What NVIDIA recommends for Hopper; smaller devices do with less of it.
constexpr std::size_t kWorkspace = std::size_t{32} << 20;
// Prompts come in many lengths: beyond this many shapes the choices are made again.
constexpr std::size_t kMostChoices = 4096;

std::mutex folder_mutex;
std::string& library_folder() {
  static auto* folder = new std::string;
  return *folder;
}

// The library by one way of looking for it; null, with the reason added to `tried`.
void* open_as(const std::string& name, int flags, std::string& tried) {
  if (void* library = dlopen(name.c_str(), flags | RTLD_NOW | RTLD_LOCAL)) return library;
  const char* reason = dlerror();
  tried += concat("\n  ", reason ? reason : name.c_str());
  return nullptr;
}

void* open_library() {
  std::string tried;
  if (const char* chosen = std::getenv(kVariable); chosen && *chosen) {
    if (void* library = open_as(chosen, 0, tried)) return library;
    throw Error(
        concat("cuBLASLt: the library that ", kVariable, " names cannot be loaded:", tried));
  }
  // One that another package of this process has loaded is used too, so that there are not two of them.
  if (void* library = dlopen(kFileName, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)) return library;
  std::string folder;
  {
    const std::lock_guard lock(folder_mutex);
    folder = library_folder();
  }
  if (!folder.empty()) {
    if (void* library = open_as((std::filesystem::path(folder) / kFileName).string(), 0, tried))
      return library;
  }
  if (void* library = open_as(kFileName, 0, tried)) return library;
  throw Error(
      concat("cuBLASLt was not found: install the package nvidia-cublas (the extra "
             "infinilm[cuda]), or name "
             "the library in ",
             kVariable, "; tried:", tried));
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  check<Error>(function != nullptr, "cuBLASLt: ", kFileName, " has no ", name,
               "; a version of the line 13 is needed");
}

lt::Functions load() {
  void* library = open_library();  // stays open: it cannot be unloaded safely
  lt::Functions f{};
  find(library, "cublasLtCreate", f.create);
  find(library, "cublasLtMatmulDescCreate", f.description_create);
  find(library, "cublasLtMatmulDescSetAttribute", f.description_set);
  find(library, "cublasLtMatrixLayoutCreate", f.layout_create);
  find(library, "cublasLtMatrixLayoutSetAttribute", f.layout_set);
  find(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy);
  find(library, "cublasLtMatmulPreferenceCreate", f.preference_create);
  find(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set);
  find(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy);
  find(library, "cublasLtMatmulAlgoGetHeuristic", f.heuristic);
  find(library, "cublasLtMatmul", f.matmul);
  find(library, "cublasLtGetStatusName", f.status_name);
  return f;
}

// Loaded once for all devices. Throws again each time if it is not there.
const lt::Functions& functions() {
  static const auto* loaded = new lt::Functions(load());
  return *loaded;
}

// The largest power of two up to 256 that divides an address, or a distance.
std::uint32_t alignment_of(std::uintptr_t address) {
  std::uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}
std::uint32_t alignment_of(const void* memory) {
  return alignment_of(reinterpret_cast<std::uintptr_t>(memory));
}
std::uint32_t alignment_of_step(std::int64_t elements, DataType type) {
  const auto size = static_cast<std::int64_t>(size_of(type));
  return alignment_of(static_cast<std::uintptr_t>(std::abs(elements) * size));
}

int type_of(DataType type) {
  return type == DataType::BF16 ? lt::kRealBf16 : type == DataType::F16 ? lt::kReal16 : lt::kReal32;
}

// What a choice depends on. How far apart repeated ones are is told to the layouts each time: results come to lie anywhere.
struct Problem {
  DataType type, c_type;
  std::int64_t m, n, k, a_stride, b_stride, c_stride;
  std::int32_t times;
  std::uint32_t a_alignment, b_alignment, c_alignment;
  auto operator<=>(const Problem&) const = default;
};

// A product that cuBLASLt has an algorithm for; none if `found` is false.
struct Choice {
  bool found = false;
  lt::Layout a = nullptr, b = nullptr, c = nullptr;
  lt::Algorithm algorithm{};
};

class CublasLt final : public MatrixProduct {
 public:
  CublasLt() : lt_(functions()) {
    check_status(lt_.create(&handle_), "starting");
    check_status(lt_.description_create(&description_, lt::kCompute32, lt::kReal32),
                 "describing a product");
    // Its matrices are column-major: ours, row-major, are their transposes, and c^T = b a^T with b as it lies transposed.
    check_status(lt_.description_set(description_, lt::kTransposeA, &lt::kTransposed,
                                     sizeof lt::kTransposed),
                 "describing a product");
    check_cuda(cudaMalloc(&workspace_, kWorkspace), "allocating the workspace of cuBLASLt");
  }

  bool multiply(void* stream, DataType type, std::int64_t m, std::int64_t n, std::int64_t k,
                const void* a, std::int64_t a_stride, const void* b, std::int64_t b_stride,
                float beta, const Results& c, const Repeated& repeated) override {
    const Problem problem{
        type,
        c.type,
        m,
        n,
        k,
        a_stride,
        b_stride,
        c.stride,
        repeated.times,
        alignment_of(a),
        std::min(alignment_of(b), alignment_of_step(repeated.b_step, type)),
        std::min(alignment_of(c.data), alignment_of_step(repeated.c_step, c.type))};
    const Choice& choice = choice_for(problem);
    if (!choice.found) return false;
    if (repeated.times > 1) {
      set_layout(choice.b, lt::kBatchOffset, repeated.b_step);
      set_layout(choice.c, lt::kBatchOffset, repeated.c_step);
    }
    const float alpha = 1.0f;
    const lt::Status status = lt_.matmul(
        handle_, description_, &alpha, b, choice.b, a, choice.a, &beta, c.data, choice.c, c.data,
        choice.c, &choice.algorithm, workspace_, kWorkspace, static_cast<cudaStream_t>(stream));
    // The choice was made before it was known how far apart repeated ones are.
    if (status != 0 && repeated.times > 1) return false;
    check_status(status, concat("multiplying [", m, ", ", k, "] by [", n, ", ", k, "]"));
    return true;
  }

 private:
  void check_status(lt::Status status, std::string_view what) const {
    check<Error>(status == 0, "cuBLASLt: ", what, ": ", lt_.status_name(status));
  }

  const Choice& choice_for(const Problem& problem) {
    if (const auto known = choices_.find(problem); known != choices_.end()) return known->second;
    if (choices_.size() >= kMostChoices) forget_choices();
    return choices_[problem] = choose(problem);
  }

  void forget_choices() {
    for (const auto& [problem, choice] : choices_) {
      for (const lt::Layout layout : {choice.a, choice.b, choice.c}) lt_.layout_destroy(layout);
    }
    choices_.clear();
  }

  lt::Layout layout(int type, std::int64_t rows, std::int64_t columns, std::int64_t stride) const {
    lt::Layout made = nullptr;
    check_status(lt_.layout_create(&made, type, static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), stride),
                 "describing a matrix");
    return made;
  }

  template <class Value>
  void set_layout(lt::Layout layout, int attribute, const Value& value) const {
    check_status(lt_.layout_set(layout, attribute, &value, sizeof value), "describing a matrix");
  }

  Choice choose(const Problem& p) const {
    Choice choice;
    choice.a = layout(type_of(p.type), p.k, p.m, p.a_stride);
    choice.b = layout(type_of(p.type), p.k, p.n, p.b_stride);
    choice.c = layout(type_of(p.c_type), p.n, p.m, p.c_stride);
    for (const lt::Layout layout : {choice.a, choice.b, choice.c}) {
      set_layout(layout, lt::kBatchCount, p.times);
    }
    lt::Preference preference = nullptr;
    check_status(lt_.preference_create(&preference), "asking for an algorithm");
    const auto set = [&](int attribute, const auto& value) {
      check_status(lt_.preference_set(preference, attribute, &value, sizeof value),
                   "asking for an algorithm");
    };
    set(lt::kMaxWorkspace, kWorkspace);
    set(lt::kMinAlignmentA, p.b_alignment);  // of its own a, which is our b
    set(lt::kMinAlignmentB, p.a_alignment);
    set(lt::kMinAlignmentC, p.c_alignment);
    set(lt::kMinAlignmentD, p.c_alignment);
    lt::Heuristic best{};
    int found = 0;
    const lt::Status status = lt_.heuristic(handle_, description_, choice.b, choice.a, choice.c,
                                            choice.c, preference, 1, &best, &found);
    lt_.preference_destroy(preference);
    choice.found = status == 0 && found > 0 && best.status == 0;
    choice.algorithm = best.algorithm;
    return choice;
  }

  const lt::Functions& lt_;
  lt::Handle handle_ = nullptr;  // for the life of the process, as the device's Ops
  lt::Description description_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Problem, Choice> choices_;
};

}  // namespace

void look_for_libraries_in(const std::string& folder) {
  const std::lock_guard lock(folder_mutex);
  library_folder() = folder;
}

std::unique_ptr<MatrixProduct> make_cublaslt() { return std::make_unique<CublasLt>(); }

}  // namespace infinilm::cuda
