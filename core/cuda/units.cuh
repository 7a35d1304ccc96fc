// How the formats lie in a slot of a ring (ring.cuh), and what a lane holds of a unit of them.
#pragma once

#include "cuda/arrivals.cuh"
#include "cuda/pieces.cuh"

namespace infinilm::cuda {

template <Layout kLayout>
struct FloatUnit {
  static constexpr bool kScaled = false;
  static constexpr int kItem = kLayout == Layout::F32 ? 4 : 2;
  static constexpr int kRowBytes = 128;  // of each of the 16 outputs: whole cache lines
  static constexpr int kColumns = kRowBytes / kItem, kPieces = kColumns / 32;
  static constexpr int kDepth = 12;
  static constexpr int kSlotBytes = kTileRows * kRowBytes;
  static constexpr int kLoads = kItem / 2;  // of 16 bytes, for a lane's columns of a piece
  uint4 v[kPieces][2][kLoads];

  // Where a row's 16 bytes number `chunk` are kept: lanes of two rows read at once, from different banks.
  __device__ __forceinline__ static int place(int row, int chunk) {
    constexpr int kOther = kItem == 4 ? 1 : 4;
    return row * kRowBytes + (chunk ^ (row % 2 * kOther)) * 16;
  }
  // A warp's units of a tile, one after the other; a lane copies 16 bytes of every fourth row.
  struct Source {
    const std::byte* from;
    std::int64_t below;  // bytes to the next of them
    int rows, left;      // that there are: of the matrix, and bytes of the row

    __device__ __forceinline__ void open(const MatrixView& m, int tile, int number) {
      const int row = tile * kTileRows + lane_index() / 8;
      const int column = number * kRowBytes + lane_index() % 8 * 16;
      from = m.data + row * m.row_bytes + column;
      below = 4 * m.row_bytes;
      rows = m.outputs - row;
      left = static_cast<int>(m.row_bytes) - column;
    }
    __device__ __forceinline__ void next(int units) {
      from += units * kRowBytes;
      left -= units * kRowBytes;
    }
    __device__ __forceinline__ void fetch(unsigned char* slot) const {
      unsigned char* to = slot + place(lane_index() / 8, lane_index() % 8);
#pragma unroll
      for (int i = 0; i < kTileRows / 4; ++i) {
        copy_async(to + i * 4 * kRowBytes, from + i * below, left > 0 && i * 4 < rows);
      }
    }
  };
  __device__ __forceinline__ void load(const unsigned char* slot) {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const int chunk = (piece * 4 + t) * kLoads + i;
          v[piece][h][i] = *reinterpret_cast<const uint4*>(slot + place(g + h * 8, chunk));
        }
      }
    }
  }
  __device__ __forceinline__ Eight eight(int piece, int h) const {
    const uint4& first = v[piece][h][0];
    if constexpr (kLayout == Layout::F32) return eight_of_f32(first, v[piece][h][kLoads - 1]);
    if constexpr (kLayout == Layout::F16) return eight_of_f16(first);
    return eight_of_bf16(first);
  }
  __device__ __forceinline__ Pairs pairs(int piece, int h) const {
    const uint4& all = v[piece][h][0];
    return {{all.x, all.y, all.z, all.w}};
  }
  // As 16-bit floats of the type that this is.
  template <bool kF16>
  __device__ __forceinline__ Pairs rounded(int piece, int h) const {
    static_assert(kLayout == (kF16 ? Layout::F16 : Layout::Bf16));
    return pairs(piece, h);
  }
  __device__ __forceinline__ float scale(int, int) const { return 1.0f; }
};

// What a lane multiplies of a piece of 32 columns by signed bytes (multiply_bytes): codes less the format's middle, kCodeStep times, of
// output g columns 8 t … + 3 (or, of four bits, those of lower halves of bytes), the same of output g + 8, and of both the other four
// columns. Four bits are where they cost least, in the upper halves of bytes.
struct SignedCodes {
  unsigned v[4];
};
template <Layout kLayout>
inline constexpr int kCodeMiddle = kLayout == Layout::Q4 ? 8 : 128;
template <Layout kLayout>
inline constexpr int kCodeStep = kLayout == Layout::Q4 ? 16 : 1;

// Units of a tile, one after the other, kBytes of them at a time.
template <int kBytes>
struct CodeSource {
  const std::byte* from;

  __device__ __forceinline__ void open(const MatrixView& m, int tile, int number) {
    from = m.data + tile * m.unit.tile_bytes() + number * kBytes;
  }
  __device__ __forceinline__ void next(int step) { from += step * kBytes; }
  __device__ __forceinline__ void fetch(unsigned char* slot) const {
    const int lane = lane_index() * 16;
#pragma unroll
    for (int at = 0; at < kBytes; at += 512) {
      if (at + lane < kBytes) copy_async(slot + at + lane, from + at + lane, true);
    }
  }
  // By one lane; `arrival` hears of it.
  __device__ __forceinline__ void fetch_at_once(unsigned char* slot, Arrival* arrival) const {
    copy_at_once(slot, from, kBytes, arrival);
  }
};

// kZeros: groups have zeros of their own; otherwise the format's middle is known here.
template <Layout kLayout, int kRuns, bool kZeros>
struct QuantisedUnit {
  static constexpr bool kScaled = true, kHasZeros = kZeros;
  static constexpr Layout kFormat = kLayout;
  static constexpr int kRunsOfUnit = kRuns;
  static constexpr int kColumns = unit_columns(kLayout);
  static constexpr int kPieces = kColumns / 32;
  static constexpr int kDepth = 12;
  static constexpr int kSlotBytes = unit_bytes(kRuns, kZeros);
  static constexpr int kScalesAt = 1024, kZerosAt = kScalesAt + kRuns * 32;
  using Source = CodeSource<kSlotBytes>;
  uint4 codes[2];
  unsigned scales[kRuns];  // of outputs g and g + 8
  std::uint16_t zeros[kZeros ? kRuns : 1];

  __device__ __forceinline__ void load(const unsigned char* slot) {
    load_codes(slot);
    const int g = lane_index() / 4;
    const auto* s = reinterpret_cast<const unsigned*>(slot + kScalesAt) + g * kRuns;
    const auto* z = reinterpret_cast<const std::uint16_t*>(slot + kZerosAt) + g * kRuns;
    if constexpr (kRuns == 4) {  // both are aligned for it
      const auto all = *reinterpret_cast<const uint4*>(s);
      scales[0] = all.x, scales[1] = all.y, scales[2] = all.z, scales[3] = all.w;
    } else {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) scales[r] = s[r];
    }
    if constexpr (kZeros) {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) zeros[r] = z[r];
    }
  }
  __device__ __forceinline__ void load_codes(const unsigned char* slot) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      codes[h] = *reinterpret_cast<const uint4*>(slot + h * 512 + lane_index() * 16);
    }
  }
  __device__ __forceinline__ static unsigned word(const uint4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  }
  __device__ __forceinline__ int zero(int piece, int h) const {
    if constexpr (!kZeros) return kCodeMiddle<kLayout>;
    return zeros[run_place(kRuns, piece * kRuns / kPieces)] >> (8 * h) & 0xff;
  }
  __device__ __forceinline__ Eight eight(int piece, int h) const {
    if constexpr (kLayout == Layout::Q4) return eight_of_q4(word(codes[h], piece), zero(piece, h));
    return eight_of_q8(word(codes[h], 2 * piece), word(codes[h], 2 * piece + 1), zero(piece, h));
  }
  __device__ __forceinline__ SignedCodes signed_codes(int piece) const {
    if constexpr (kLayout == Layout::Q4) {
      constexpr unsigned kUpper = 0xf0f0f0f0u, kSigns = 0x80808080u;
      const unsigned a = word(codes[0], piece), b = word(codes[1], piece);
      return {{and_xor(a << 4, kUpper, kSigns), and_xor(b << 4, kUpper, kSigns),
               and_xor(a, kUpper, kSigns), and_xor(b, kUpper, kSigns)}};
    }
    const auto half = [&](int h, int i) { return word(codes[h], 2 * piece + i) ^ 0x80808080u; };
    return {{half(0, 0), half(1, 0), half(0, 1), half(1, 1)}};
  }
  // Codes as float16, beside kCodeOffset.
  __device__ __forceinline__ Pairs pairs(int piece, int h) const {
    if constexpr (kLayout == Layout::Q4) return offset_pairs_of_q4(word(codes[h], piece));
    return offset_pairs_of_q8(word(codes[h], 2 * piece), word(codes[h], 2 * piece + 1));
  }
  // Scaled, as 16-bit floats: without their offset, and zero, codes are exact as float16.
  template <bool kF16>
  __device__ __forceinline__ Pairs rounded(int piece, int h) const {
    const float by = scale(piece, h);
    const unsigned offset = twice_f16(kCodeOffset<kLayout> + static_cast<float>(zero(piece, h)));
    Pairs p = pairs(piece, h);
#pragma unroll
    for (unsigned& v : p.v) {
      v = subtract_f16(v, offset);
      v = pack_half<kF16>(low_f16(v) * by, high_f16(v) * by);
    }
    return p;
  }
  __device__ __forceinline__ float scale(int piece, int h) const {
    const unsigned both = scales[run_place(kRuns, piece * kRuns / kPieces)];
    return h == 0 ? low_f16(both) : high_f16(both);
  }
};

// Two neighbouring units as one: half the work beside multiplying, and more of it side by side.
template <class Unit>
struct PairOfUnits {
  static constexpr bool kScaled = true, kHasZeros = Unit::kHasZeros;
  static constexpr Layout kFormat = Unit::kFormat;
  static constexpr int kRunsOfUnit = 2 * Unit::kRunsOfUnit;
  static constexpr int kColumns = 2 * Unit::kColumns, kPieces = 2 * Unit::kPieces;
  static constexpr int kDepth = Unit::kDepth / 2;
  static constexpr int kSlotBytes = 2 * Unit::kSlotBytes;
  using Source = CodeSource<kSlotBytes>;
  Unit units[2];

  __device__ __forceinline__ SignedCodes signed_codes(int piece) const {
    return units[piece / Unit::kPieces].signed_codes(piece % Unit::kPieces);
  }
};

template <class Unit>
struct TwoUnits : PairOfUnits<Unit> {
  using PairOfUnits<Unit>::units;

  __device__ __forceinline__ void load(const unsigned char* slot) {
    units[0].load(slot);
    units[1].load(slot + Unit::kSlotBytes);
  }
  __device__ __forceinline__ int zero(int piece, int h) const {
    return units[piece / Unit::kPieces].zero(piece % Unit::kPieces, h);
  }
  __device__ __forceinline__ float scale(int piece, int h) const {
    return units[piece / Unit::kPieces].scale(piece % Unit::kPieces, h);
  }
};

// For one row of x, of which two pieces are multiplied at a time, by halves: lane (g, t) has the scales of half t of them.
template <class Unit>
struct UnitsOfRow : PairOfUnits<Unit> {
  using PairOfUnits<Unit>::kPieces, PairOfUnits<Unit>::kHasZeros, PairOfUnits<Unit>::units;
  unsigned scales[kPieces / 2];  // of outputs g and g + 8
  std::uint16_t zeros[kHasZeros ? kPieces / 2 : 1];

  __device__ __forceinline__ void load(const unsigned char* slot) {
    const int g = lane_index() / 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) units[i].load_codes(slot + i * Unit::kSlotBytes);
    constexpr int kRuns = Unit::kRunsOfUnit, kTwos = Unit::kPieces / 2;  // of a unit
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const unsigned char* unit = slot + u * Unit::kSlotBytes;
      const int first = g * kRuns + (kRuns == 1 ? 0 : lane_index() % 4 / 2 * kTwos);
      const auto* s = reinterpret_cast<const unsigned*>(unit + Unit::kScalesAt) + first;
      const auto* z = reinterpret_cast<const std::uint16_t*>(unit + Unit::kZerosAt) + first;
      if constexpr (kRuns == 4) {  // both are aligned for it
        const auto both = *reinterpret_cast<const uint2*>(s);
        scales[2 * u] = both.x, scales[2 * u + 1] = both.y;
      } else {
#pragma unroll
        for (int i = 0; i < kTwos; ++i) scales[u * kTwos + i] = s[0];
      }
      if constexpr (kHasZeros) {
#pragma unroll
        for (int i = 0; i < kTwos; ++i) zeros[u * kTwos + i] = z[kRuns == 4 ? i : 0];
      }
    }
  }
  // Of the lane's half of two pieces.
  __device__ __forceinline__ int own_zero(int two, int h) const {
    return zeros[two] >> (8 * h) & 0xff;
  }
  __device__ __forceinline__ float own_scale(int two, int h) const {
    return h == 0 ? low_f16(scales[two]) : high_f16(scales[two]);
  }
};

// Calls launch<Unit>() for the units of a quantised matrix.
template <Layout kLayout, int kRuns, class Launch>
void for_unit_of_runs(const UnitLayout& layout, Launch launch) {
  if (layout.zeros) {
    launch.template operator()<QuantisedUnit<kLayout, kRuns, true>>();
  } else {
    launch.template operator()<QuantisedUnit<kLayout, kRuns, false>>();
  }
}
template <Layout kLayout, class Launch>
void for_unit(const UnitLayout& layout, Launch launch) {
  if (layout.runs == 1) {
    for_unit_of_runs<kLayout, 1>(layout, launch);
  } else {  // of 32 columns
    for_unit_of_runs<kLayout, QuantisedUnit<kLayout, 1, false>::kPieces>(layout, launch);
  }
}

}  // namespace infinilm::cuda
