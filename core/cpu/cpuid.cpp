#include "cpu/cpuid.hpp"

#include <cstdint>

#include "cpu/kernels.hpp"
#include "cpu/settings.hpp"

#if defined(INFINILM_X86)
#include <cpuid.h>
#endif
#if defined(INFINILM_AMX_LEVEL)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace infinilm::cpu {
namespace {

#if defined(INFINILM_X86)

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

bool has(std::uint32_t word, int bit) { return (word >> bit & 1u) != 0; }

// Which registers the system saves on a context switch.
std::uint64_t saved_state() {
  constexpr int kOsXsave = 27;
  if (!has(cpuid(1, 0).ecx, kOsXsave)) return 0;
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

#if defined(INFINILM_AMX_LEVEL)
// Linux gives a process the tiles' registers when it asks for them (Documentation/arch/x86/xstate.rst). All threads have
// them from then on.
bool tiles_granted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::vector<std::string> detect() {
  constexpr std::uint64_t kYmm = 0x06, kZmm = 0xe6;
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
  const std::uint64_t saved = saved_state();
  const bool fma = has(one.ecx, 12), f16c = has(one.ecx, 29), avx = has(one.ecx, 28);
  const bool avx2 = has(seven.ebx, 5) && avx && fma && f16c && (saved & kYmm) == kYmm;
  const bool f = has(seven.ebx, 16), dq = has(seven.ebx, 17), bw = has(seven.ebx, 30),
             vl = has(seven.ebx, 31);
  const bool avx512 = avx2 && f && dq && bw && vl && (saved & kZmm) == kZmm;
  const bool vnni = has(seven.ecx, 11);
  const bool bf16 = avx512 && vnni && has(more.eax, 5);
  std::vector<std::string> levels = {"scalar"};
  if (avx2) levels.push_back("avx2");
#if defined(INFINILM_AVX512)
  if (avx512) levels.push_back("avx512");
#endif
#if defined(INFINILM_AVX512BF16)
  if (bf16) levels.push_back("avx512bf16");
#endif
#if defined(INFINILM_AMX_LEVEL)
  constexpr std::uint64_t kTiles = 0x60000;
  const bool tiles = has(seven.edx, 24) && has(seven.edx, 22) && (saved & kTiles) == kTiles;
  if (bf16 && tiles && tiles_granted()) levels.push_back("amx");
#endif
  static_cast<void>(avx512);
  static_cast<void>(bf16);
  return levels;
}

#elif defined(INFINILM_NEON)

std::vector<std::string> detect() { return {"scalar", "neon"}; }

#else

std::vector<std::string> detect() { return {"scalar"}; }

#endif

const Kernels& table_of(const std::string& level) {
#if defined(INFINILM_AMX_LEVEL)
  if (level == "amx") return kernels_amx();
#endif
#if defined(INFINILM_AVX512BF16)
  if (level == "avx512bf16") return kernels_avx512bf16();
#endif
#if defined(INFINILM_AVX512)
  if (level == "avx512") return kernels_avx512();
#endif
#if defined(INFINILM_X86)
  if (level == "avx2") return kernels_avx2();
#endif
#if defined(INFINILM_NEON)
  if (level == "neon") return kernels_neon();
#endif
  static_cast<void>(level);
  return kernels_scalar();
}

}  // namespace

const std::vector<std::string>& supported_levels() {
  static const std::vector<std::string> levels = detect();
  return levels;
}

const Kernels& kernels() {
  static const Kernels& chosen = table_of(configured_level(supported_levels()));
  return chosen;
}

}  // namespace infinilm::cpu
