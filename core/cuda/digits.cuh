// x for products of codes on tensor cores: each column as two signed bytes, with a power of two for each unit of columns, or kDigitRun of one
// row, and the sums of such products, exact as whole numbers until a scale comes.
//
//   x = 2^k (256 high + low), where 2^k brings the largest of these columns to [2^13, 2^14)
//
// So x is rounded to half a step of 2^k. In the mean of 128 columns that is at most a quarter of what rounding to bfloat16
// would do, whatever is in it, and a sixteenth where columns are alike. Infinities become NaN.
#pragma once

#include "cuda/product.hpp"
#include "cuda/sums.cuh"
#include "cuda/units.cuh"

namespace infinilm::cuda {

// How digits lie in memory: of every 64 columns 128 bytes, [digit 2][t 4][piece 2][8 columns], the higher digits first, so that a
// lane reads what it multiplies of two pieces at once. The eight columns are in the order of SignedCodes.
inline constexpr unsigned kChunkOfDigits = 64;
__device__ __forceinline__ unsigned digits_place(unsigned column, unsigned digit) {
  const unsigned piece = column % kChunkOfDigits / 32, t = column % 32 / 8;
  return column / kChunkOfDigits * 128 + digit * 64 + t * 16 + piece * 8;
}

// Where one of eight neighbouring columns is among them, as gather_digits has them.
template <Layout kLayout>
__device__ __forceinline__ unsigned place_of_eight(unsigned column) {
  return kLayout == Layout::Q4 ? column % 4 * 2 + column / 4 : column;
}

// Of eight neighbouring columns.
struct Digits {
  uint2 high, low;
};

// Byte number kByte of each of four.
template <int kByte>
__device__ __forceinline__ unsigned gather_bytes(unsigned a, unsigned b, unsigned c, unsigned d) {
#if defined(__CUDA_ARCH__)
  constexpr unsigned kPick = kByte * 0x11u + 0x40u;
  return __byte_perm(__byte_perm(a, b, kPick), __byte_perm(c, d, kPick), 0x5410u);
#else
  const auto byte = [](unsigned v) { return v >> (8 * kByte) & 0xffu; };
  return byte(a) | byte(b) << 8 | byte(c) << 16 | byte(d) << 24;
#endif
}
template <Layout kLayout, int kByte>
__device__ __forceinline__ uint2 gather_digits(const unsigned (&v)[8]) {
  if constexpr (kLayout == Layout::Q4) {
    return {gather_bytes<kByte>(v[0], v[4], v[1], v[5]),
            gather_bytes<kByte>(v[2], v[6], v[3], v[7])};
  }
  return {gather_bytes<kByte>(v[0], v[1], v[2], v[3]), gather_bytes<kByte>(v[4], v[5], v[6], v[7])};
}

// The power of two that brings `largest` to [2^13, 2^14), and its inverse: NaN for infinities.
struct PowerOfTwo {
  float value, inverse;
};
__device__ __forceinline__ PowerOfTwo scale_for(float largest) {
  const unsigned exponent = __float_as_uint(largest) >> 23;
  if (exponent == 255) return {1.0f, __uint_as_float(0x7fc00000u)};
  const unsigned biased = min(267u - exponent, 253u);
  return {__uint_as_float(biased << 23), __uint_as_float((254u - biased) << 23)};
}

// Added to this, a number of less than 2^22 is rounded to a whole one, which is in the lowest bits as it is.
inline constexpr float kWhole = 12582912.0f;
inline constexpr unsigned kWholeBits = 0x4b400000u;

// A column in steps of a power of two: a whole number, of which the lowest byte is the lower digit.
struct Whole {
  unsigned bits;

  __device__ __forceinline__ Whole(float v, const PowerOfTwo& scale) {
    bits = __float_as_uint(fmaf(v, scale.value, kWhole));
  }
  __device__ __forceinline__ unsigned number() const { return bits - kWholeBits; }
  // Its second byte is the higher digit: the lower one is signed.
  __device__ __forceinline__ unsigned rounded() const { return bits + 128; }
};

// Eight columns of a row, by lanes that have neighbouring ones; all lanes of a warp at once. True where `note` is to be kept: in one
// lane of each run of columns. Its scale undoes that codes are taken kCodeStep times; its sum takes time, which not all need.
template <Layout kLayout, int kScaleColumns, int kRunColumns, bool kWithSum = true>
__device__ __forceinline__ bool take_digits(const float (&v)[8], Digits& digits, Note& note) {
  constexpr int kScaleLanes = kScaleColumns / 8, kRunLanes = kRunColumns / 8;
  float largest = larger_size(larger_size(larger_size(v[0], v[1]), larger_size(v[2], v[3])),
                              larger_size(larger_size(v[4], v[5]), larger_size(v[6], v[7])));
#pragma unroll
  for (int mask = 1; mask < kScaleLanes; mask *= 2) {
    largest = larger_size(largest, __shfl_xor_sync(kAll, largest, mask));
  }
  const PowerOfTwo scale = scale_for(largest);
  unsigned low[8], high[8], sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const Whole whole(v[i], scale);
    low[i] = whole.bits;
    high[i] = whole.rounded();
    sum += whole.number();
  }
  digits = {gather_digits<kLayout, 1>(high), gather_digits<kLayout, 0>(low)};
  if constexpr (kWithSum) {
#pragma unroll
    for (int mask = 1; mask < kRunLanes; mask *= 2) sum += __shfl_xor_sync(kAll, sum, mask);
  } else {
    sum = 0;
  }
  const bool is_finite = scale.inverse == scale.inverse;  // otherwise the sum is of no number
  note = {is_finite ? static_cast<int>(sum) : 0, scale.inverse / kCodeStep<kLayout>};
  return lane_index() % kRunLanes == 0;
}
__device__ __forceinline__ void put_digits(std::uint16_t* row, int column, const Digits& digits) {
  unsigned char* high =
      reinterpret_cast<unsigned char*>(row) + digits_place(static_cast<unsigned>(column), 0);
  *reinterpret_cast<uint2*>(high) = digits.high;
  *reinterpret_cast<uint2*>(high + digits_place(0, 1)) = digits.low;
}

// One column of a row for the product after this one, by 16 lanes that have a run of them; all lanes of a warp at once. The value that its
// digits stand for.
template <class Unit>
__device__ __forceinline__ float leave_digits(const DigitRow& to, unsigned column, float v,
                                              bool is_there) {
  float largest = fabsf(v);
#pragma unroll
  for (int mask = 1; mask < kDigitRun; mask *= 2) {
    largest = larger_size(largest, __shfl_xor_sync(kAll, largest, mask));
  }
  const PowerOfTwo scale = scale_for(largest);
  const Whole whole(v, scale);
  const bool is_finite = scale.inverse == scale.inverse;
  int sum = is_finite ? static_cast<int>(whole.number()) : 0;
  const float rounded = is_finite ? static_cast<float>(sum) * scale.inverse : v;
  if constexpr (Unit::kHasZeros) {
#pragma unroll
    for (int mask = 1; mask < kDigitRun; mask *= 2) sum += __shfl_xor_sync(kAll, sum, mask);
  }
  if (!is_there) return rounded;
  auto* bytes = reinterpret_cast<unsigned char*>(to.x) + place_of_eight<Unit::kFormat>(column % 8);
  bytes[digits_place(column, 0)] = static_cast<unsigned char>(whole.rounded() >> 8);
  bytes[digits_place(column, 1)] = static_cast<unsigned char>(whole.bits);
  if (column % kDigitRun == 0) {
    to.notes[column / kDigitRun] = {sum, scale.inverse / kCodeStep<Unit::kFormat>};
  }
  return rounded;
}

// Rows of x as digits in shared memory, with a power of two for each kScaleColumns, and a note for each kRun.
template <class Unit, int kScaleColumns, int kRun>
struct DigitRows {
  using X = std::uint16_t;  // both digits of a column
  using Note = cuda::Note;
  static constexpr bool kTakesAnySize = true;
  static constexpr int kRunColumns = kRun;

  static constexpr int notes(int rows, int columns) { return columns / kRunColumns * rows; }
  // A zero as codes are multiplied: without the format's middle, kCodeStep times.
  __device__ __forceinline__ static int signed_zero(int zero) {
    return (zero - kCodeMiddle<Unit::kFormat>)*kCodeStep<Unit::kFormat>;
  }
  template <class Sums>
  __device__ __forceinline__ static void put_note(const StagedX<Sums>& x, int r, int column,
                                                  const Note& note) {
    x.notes[column / kRunColumns * x.rows + r] = note;
  }
  template <class Sums>
  __device__ __forceinline__ static void put(const StagedX<Sums>& to, int r, int column,
                                             const float (&v)[kOwn], bool is_inside) {
    Digits digits;
    Note note;
    const bool keeps =
        take_digits<Unit::kFormat, kScaleColumns, kRun, Unit::kHasZeros>(v, digits, note);
    if (!is_inside) return;
    put_digits(to.x + r * to.stride, column, digits);
    if (keeps) Sums::put_note(to, r, column, note);
  }
};

template <class Unit>
using RowsOfUnits =
    DigitRows<Unit, unit_columns(Unit::kFormat), Unit::kColumns / Unit::kRunsOfUnit>;

// Of kCount times four rows. A product on tensor cores has eight columns, for the digits of four rows; what a lane multiplies for rows
// that are not there, nobody asks for. Lane (g, t) gets outputs g and g + 8 of row t.
template <class Unit, int kCount>
struct DigitSums : SumsByRow, RowsOfUnits<Unit> {
  using Rows = RowsOfUnits<Unit>;
  using Rows::kRunColumns;
  static constexpr int kRunPieces = kRunColumns / 32;
  static constexpr int kRows = 4 * kCount;
  static constexpr int kScaledPieces = unit_columns(Unit::kFormat) / 32;
  float d[kCount][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) d[i][0] = d[i][1] = 0.0f;
  }
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<DigitSums>& from) {
#pragma unroll
    for (int first = 0; first < Unit::kPieces; first += kScaledPieces) {
      float parts[kCount][2] = {};
      int sums[kCount][4];
#pragma unroll
      for (int pair = first; pair < first + kScaledPieces; pair += 2) {
        uint4 x[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) x[i] = two_pieces(from, pair * 32, i);
#pragma unroll
        for (int piece = pair; piece < pair + 2; ++piece) {
          if (piece % kRunPieces == 0) clear(sums);
          const SignedCodes w = unit.signed_codes(piece);
#pragma unroll
          for (int i = 0; i < kCount; ++i) {
            const bool is_first = piece == pair;
            multiply_bytes(sums[i], w.v, is_first ? x[i].x : x[i].z, is_first ? x[i].y : x[i].w);
          }
          if (piece % kRunPieces == kRunPieces - 1) {
            add_run(sums, unit, piece, from, parts);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float step = note_of(from, first * 32, i).scale;
#pragma unroll
        for (int h = 0; h < 2; ++h) d[i][h] = fmaf(parts[i][h], step, d[i][h]);
      }
    }
  }
  __device__ __forceinline__ unsigned bits() const { return bits_of(d); }
  __device__ __forceinline__ void store(float* to, int rows, bool is_first) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = i * 4 + t;
      if (row >= rows) continue;
      put_sum(to + place(row, g), d[i][0], is_first);
      put_sum(to + place(row, g + 8), d[i][1], is_first);
    }
  }

 private:
  __device__ __forceinline__ static void clear(int (&sums)[kCount][4]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0;
  }
  // Whole numbers of a run that `piece` is of, times its scales.
  __device__ __forceinline__ static void add_run(const int (&sums)[kCount][4], const Unit& unit,
                                                 int piece, const StagedX<DigitSums>& from,
                                                 float (&to)[kCount][2]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int sum = sums[i][2 * h] * 256 + sums[i][2 * h + 1];
        if constexpr (Unit::kHasZeros) {
          const int zero = Rows::signed_zero(unit.zero(piece, h));
          sum -= zero * note_of(from, piece * 32, i).sum;
        }
        to[i][h] = fmaf(static_cast<float>(sum), unit.scale(piece, h), to[i][h]);
      }
    }
  }
  // What a lane multiplies of two pieces: of row g / 2 of four, digit g % 2.
  __device__ __forceinline__ static uint4 two_pieces(const StagedX<DigitSums>& from, int column,
                                                     int i) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const int row = min(i * 4 + g / 2, from.rows - 1);
    const auto* bytes = reinterpret_cast<const unsigned char*>(from.x + row * from.stride);
    const unsigned at = digits_place(static_cast<unsigned>(column), static_cast<unsigned>(g % 2));
    return *reinterpret_cast<const uint4*>(bytes + at + t * 16);
  }
  __device__ __forceinline__ static Note note_of(const StagedX<DigitSums>& from, int column,
                                                 int i) {
    const int row = min(i * 4 + lane_index() % 4, from.rows - 1);
    return from.notes[column / kRunColumns * from.rows + row];
  }
};

// Of one row, with a scale for every kDigitRun columns. The eight columns of a product are the digits of the four halves of two pieces, each
// of them zero beside the others: lane (g, t) gets outputs g and g + 8 of half t, and scales what no other lane does. Half of a piece are
// the columns of lanes t = 0 and 1, or of 2 and 3.
template <class Unit>
struct RowSums : DigitRows<Unit, kDigitRun, kDigitRun> {
  using Rows = DigitRows<Unit, kDigitRun, kDigitRun>;
  // Sums only where there are zeros that need them. Those that a lane multiplies of a unit are neighbours.
  using Note = std::conditional_t<Unit::kHasZeros, cuda::Note, float>;
  static constexpr int kTwos = Unit::kPieces / 2;
  struct alignas(kTwos * sizeof(Note)) OwnNotes {
    Note of[kTwos];
  };
  static constexpr bool kHasDigitRuns = true;
  static constexpr int kRows = 1;
  float d[2];
  uint2 x[Unit::kPieces] = {};  // what the lane multiplies: zeros stay where it has no part
  OwnNotes own_notes;

  __host__ __device__ static constexpr int floats(int) { return kTileRows; }
  __device__ static constexpr int place(int, int n) { return n; }
  __device__ __forceinline__ static void put_note(const StagedX<RowSums>& x, int, int column,
                                                  const cuda::Note& note) {
    const unsigned run = static_cast<unsigned>(column) / kDigitRun;
    constexpr unsigned kEach = kTwos, kOfUnit = 4 * kEach;
    Note& to = x.notes[run / kOfUnit * kOfUnit + run % 4 * kEach + run / 4 % kEach];
    if constexpr (Unit::kHasZeros) {
      to = note;
    } else {
      to = note.scale;
    }
  }
  __device__ __forceinline__ void clear() { d[0] = d[1] = 0.0f; }
  __device__ __forceinline__ void take(const StagedX<RowSums>& from) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const auto own_column = static_cast<unsigned>(g / 4 * 32 + t * 8);
    const auto* own = reinterpret_cast<const unsigned char*>(from.x) +
                      digits_place(own_column, static_cast<unsigned>(g % 2));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (g / 2 != i * 2 + t / 2) continue;
#pragma unroll
      for (int two = 0; two < kTwos; ++two) {
        const unsigned at = digits_place(static_cast<unsigned>(two) * kChunkOfDigits, 0);
        x[two * 2 + i] = *reinterpret_cast<const uint2*>(own + at);
      }
    }
    if constexpr (!Unit::kHasZeros) take_notes(from);  // there are registers for it
  }
  __device__ __forceinline__ void take_notes(const StagedX<RowSums>& from) {
    own_notes = *reinterpret_cast<const OwnNotes*>(from.notes + lane_index() % 4 * kTwos);
  }
  __device__ __forceinline__ void add(const Unit& unit, const StagedX<RowSums>& from) {
    if constexpr (Unit::kHasZeros) take_notes(from);
#pragma unroll
    for (int two = 0; two < kTwos; ++two) {
      int sums[4] = {};
#pragma unroll
      for (int i = two * 2; i < two * 2 + 2; ++i) {
        multiply_bytes(sums, unit.signed_codes(i).v, x[i].x, x[i].y);
      }
      const Note note = own_notes.of[two];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int sum = sums[2 * h] * 256 + sums[2 * h + 1];
        float scale;
        if constexpr (Unit::kHasZeros) {
          sum -= Rows::signed_zero(unit.own_zero(two, h)) * note.sum;
          scale = note.scale;
        } else {
          scale = note;
        }
        d[h] = fmaf(static_cast<float>(sum) * unit.own_scale(two, h), scale, d[h]);
      }
    }
  }
  __device__ __forceinline__ unsigned bits() const {
    return __float_as_uint(d[0]) | __float_as_uint(d[1]);
  }
  // Of the four lanes of an output two get what all four have of one.
  __device__ __forceinline__ void store(float* to, int, bool is_first) const {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const bool is_odd = t % 2 != 0;
    float sum = is_odd ? d[1] : d[0];
    sum += __shfl_xor_sync(kAll, is_odd ? d[0] : d[1], 1);
    sum += __shfl_xor_sync(kAll, sum, 2);
    if (t < 2) put_sum(to + place(0, g + t * 8), sum, is_first);
  }
};

}  // namespace infinilm::cuda
