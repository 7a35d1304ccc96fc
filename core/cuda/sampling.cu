// What top_k and top_p keep is found digit by digit: a column and its value are one number, the larger the sooner it is kept, and
// each pass over a row adds up what lies behind each value of the next digit. The block that is done last looks for the edge in
// these sums. (Radix selection; Alabi et al. 2012, "Fast k-selection algorithms for graphics processing units".)
//
// Weights are whole numbers, shares of the largest's in steps of 2^-42. Sums of such do not depend on their order, so a row gives the
// same token in every batch and on every device.
#include <algorithm>
#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/rows.hpp"
#include "cuda/sampling.hpp"

namespace infinilm::cuda {
namespace {

using Mass = unsigned long long;  // that there are atomics for

constexpr int kThreads = 256;
constexpr int kPerThread = 8;
constexpr int kBins = kThreads * kPerThread;
constexpr int kMostPieces = 64;            // of a row, each a block's
constexpr int kLeastColumns = 1024;        // of a piece
constexpr double kUnit = 4398046511104.0;  // 2^42: up to 2^21 columns cannot overflow

// Of a key: 32 bits of the value, then 21 that are larger for lower columns.
constexpr int kColumnBits = 21;
struct Digit {
  int shift, bits;
};
constexpr int kDigits = 5, kDigitsOfValue = 3;
constexpr Digit kDigit[kDigits] = {{42, 11}, {31, 11}, {21, 10}, {10, 11}, {0, 10}};

__device__ std::uint64_t key_of(float value, int column) {
  const unsigned bits = __float_as_uint(value + 0.0f);  // -0 is 0
  const unsigned ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  constexpr std::uint64_t kLast = (std::uint64_t{1} << kColumnBits) - 1;
  return std::uint64_t{ordered} << kColumnBits | (kLast - static_cast<std::uint64_t>(column));
}

__device__ bool is_finite(float x) { return x - x == 0.0f; }

// Of the largest's probability.
__device__ double share_of(float value, float largest, double temperature) {
  return exp((static_cast<double>(value) - static_cast<double>(largest)) / temperature);
}
__device__ Mass mass_of(double share) { return static_cast<Mass>(share * kUnit + 0.5); }

// Of a row, between the passes.
struct State {
  std::uint64_t lowest;  // keys below are out
  std::uint64_t found;   // the digits so far of the key at the edge
  Mass left;             // what is still to be reached from there
  unsigned arrived;      // blocks; zero between the passes
};

struct Task {
  const float* data;
  std::int64_t stride;
  int cols;
  int piece;  // columns
  double temperature;
  const Chosen* largest;
  State* states;

  __device__ const float* row() const { return data + blockIdx.y * stride; }
  __device__ int begin() const { return static_cast<int>(blockIdx.x) * piece; }
  __device__ int end() const { return min(cols, begin() + piece); }
};

// Sums of the threads before this one, and of all, in `total`.
__device__ Mass sum_before(Mass mine, Mass& total) {
  __shared__ Mass sums[kThreads / 32];
  Mass up_to = mine;
  for (int step = 1; step < 32; step *= 2) {
    const Mass other = __shfl_up_sync(kAll, up_to, static_cast<unsigned>(step));
    if (lane_index() >= step) up_to += other;
  }
  __syncthreads();
  if (lane_index() == 31) sums[warp_index()] = up_to;
  __syncthreads();
  Mass before = 0;
  total = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w < warp_index()) before += sums[w];
    total += sums[w];
  }
  return before + up_to - mine;
}

// Whether this block is the last of its row to come here. What the others wrote before is there then.
__device__ bool is_last_of_row(State& state) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(&state.arrived, 1u) == gridDim.x - 1;
    if (is_last) state.arrived = 0;  // for the next pass
  }
  __syncthreads();
  if (is_last) __threadfence();
  return is_last;
}

// What the heaviest have to reach: so many, or such a part of all.
template <bool kByMass>
__device__ Mass target_of(Mass total, Mass top_k, double top_p) {
  if constexpr (!kByMass) return top_k;
  const Mass part = static_cast<Mass>(ceil(top_p * static_cast<double>(total)));
  return min(max(part, Mass{1}), total);
}

// One digit of the key at the edge: the one with which the heavier ones reach the target.
template <bool kByMass>
__global__ void __launch_bounds__(kThreads)
    select_kernel(Task task, Digit digit, bool begins, bool ends, bool is_cut, Mass top_k,
                  double top_p, Mass* bins) {
  let_next_start();
  wait_for_previous();
  // Counts are small, and there are instructions to add such.
  using Amount = std::conditional_t<kByMass, Mass, unsigned>;
  __shared__ Amount sums[kBins];
  State& state = task.states[blockIdx.y];
  const float largest = task.largest[blockIdx.y].largest;
  if (!is_finite(largest)) return;
  const int thread = static_cast<int>(threadIdx.x);
  for (int b = thread; b < kBins; b += kThreads) sums[b] = 0;
  __syncthreads();
  const std::uint64_t found = begins ? 0 : state.found, lowest = is_cut ? state.lowest : 0;
  const int before = digit.shift + digit.bits;  // bits of a key that are known already lie above
  const auto mask = (1u << digit.bits) - 1;
  const float* row = task.row();
#pragma unroll 4
  for (int i = task.begin() + thread; i < task.end(); i += kThreads) {
    const std::uint64_t key = key_of(row[i], i);
    if (key < lowest || (!begins && (key ^ found) >> before != 0)) continue;
    Amount amount = 1;
    if constexpr (kByMass) amount = mass_of(share_of(row[i], largest, task.temperature));
    if (amount != 0) atomicAdd(&sums[static_cast<unsigned>(key >> digit.shift) & mask], amount);
  }
  __syncthreads();
  Mass* of_row = bins + static_cast<std::int64_t>(blockIdx.y) * kBins;
  for (int b = thread; b < kBins; b += kThreads) {
    if (sums[b] != 0) atomicAdd(&of_row[b], Mass{sums[b]});
  }
  if (!is_last_of_row(state)) return;

  const int first = kBins - 1 - thread * kPerThread;  // the heaviest come first
  Mass amounts[kPerThread], mine = 0, total = 0;
  for (int i = 0; i < kPerThread; ++i) {
    amounts[i] = __ldcg(of_row + first - i);
    of_row[first - i] = 0;  // for the next pass
    mine += amounts[i];
  }
  Mass reached = sum_before(mine, total);
  const Mass target = begins ? target_of<kByMass>(total, top_k, top_p) : state.left;
  __syncthreads();  // all have read the state
  for (int i = 0; i < kPerThread; ++i) {
    if (reached < target && target <= reached + amounts[i]) {
      const std::uint64_t value = static_cast<std::uint64_t>(first - i) << digit.shift;
      state.found = found | value;
      state.left = target - reached;
      if (ends) state.lowest = found | value;
    }
    reached += amounts[i];
  }
}

struct Numbers {
  double of[kSampledRows];
};

// The column of [begin, end) in which the masses reach more than `rest`. By the whole block.
template <class MassAt>
__device__ void find_column(int begin, int end, Mass rest, MassAt mass_at, int& column) {
  const int each = (end - begin + kThreads - 1) / kThreads;
  const int from = min(end, begin + static_cast<int>(threadIdx.x) * each);
  const int to = min(end, from + each);
  Mass mine = 0, total = 0;
  for (int i = from; i < to; ++i) mine += mass_at(i);
  const Mass before = sum_before(mine, total);
  if (rest < before || rest - before >= mine) return;
  rest -= before;
  int i = from;
  for (; rest >= mass_at(i); ++i) rest -= mass_at(i);
  column = i;
}

// Where the masses of what is kept, in the order of columns, reach the number.
__global__ void __launch_bounds__(kThreads)
    draw_kernel(Task task, bool is_cut, double min_p, Numbers numbers, Mass* sums, Found found) {
  let_next_start();
  wait_for_previous();
  const int r = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  State& state = task.states[r];
  const float largest = task.largest[r].largest;
  const auto end_with = [&](std::int64_t column) {
    found.rows[r] = {column, largest};
    found.columns[r] = column;
  };
  if (!is_finite(largest)) {
    if (blockIdx.x == 0 && thread == 0) end_with(0);
    return;
  }
  const std::uint64_t lowest = is_cut ? state.lowest : 0;
  const float* row = task.row();
  const auto mass_at = [&](int i) {
    if (key_of(row[i], i) < lowest) return Mass{0};
    const double share = share_of(row[i], largest, task.temperature);
    return share < min_p ? Mass{0} : mass_of(share);
  };
  Mass kept = 0, of_piece = 0;
#pragma unroll 4
  for (int i = task.begin() + thread; i < task.end(); i += kThreads) kept += mass_at(i);
  sum_before(kept, of_piece);
  const int pieces = static_cast<int>(gridDim.x);
  Mass* of_row = sums + static_cast<std::int64_t>(r) * kMostPieces;
  if (thread == 0) of_row[blockIdx.x] = of_piece;
  if (!is_last_of_row(state)) return;

  Mass total = 0;
  const Mass mine = thread < pieces ? __ldcg(of_row + thread) : 0;
  const Mass before = sum_before(mine, total);
  const Mass target = min(static_cast<Mass>(numbers.of[r] * static_cast<double>(total)), total - 1);
  __shared__ int piece, column;
  __shared__ Mass rest;
  if (thread == 0) {  // should nothing be kept, as of a row that somebody is writing to
    piece = column = 0;
    rest = 0;
  }
  __syncthreads();
  if (before <= target && target - before < mine) {
    piece = thread;
    rest = target - before;
  }
  __syncthreads();
  const int begin = piece * task.piece;
  find_column(begin, min(task.cols, begin + task.piece), rest, mass_at, column);
  __syncthreads();
  if (thread == 0) end_with(column);
}

__global__ void __launch_bounds__(kThreads)
    penalize_kernel(float* data, std::int64_t stride, Penalties how, const UsedToken* used,
                    int count) {
  let_next_start();
  wait_for_previous();
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= count) return;
  const UsedToken u = used[i];
  float& logit = data[u.row * stride + u.id];
  logit = penalized(logit, u.generated, how);
}

// One block a row.
__global__ void __launch_bounds__(kThreads)
    log_probabilities_kernel(const float* data, std::int64_t stride, int cols,
                             const std::int64_t* columns, float* found) {
  let_next_start();
  wait_for_previous();
  const float* row = data + blockIdx.x * stride;
  const int thread = static_cast<int>(threadIdx.x);
  float largest = kMinusInfinity;
#pragma unroll 4
  for (int i = thread; i < cols; i += kThreads) largest = fmaxf(largest, row[i]);
  largest = block_max(largest);
  float sum = 0.0f;
#pragma unroll 4
  for (int i = thread; i < cols; i += kThreads) sum += expf(row[i] - largest);
  sum = block_sum(sum);
  if (thread != 0) return;
  found[blockIdx.x] = row[columns[blockIdx.x]] - largest - logf(sum);
}

// The parts of the scratch memory.
struct Memory {
  State* states;
  Mass* bins;
  Mass* sums;
  Chosen* largest;
  std::byte* argmax;
};

struct Place {
  std::size_t end = 0;
  std::size_t take(std::size_t nbytes) {
    const std::size_t begin = end;
    end += (nbytes + 15) / 16 * 16;
    return begin;
  }
};

std::size_t lay_out(std::byte* memory, Memory& m) {
  Place place;
  const auto part = [&](auto*& pointer, std::size_t count) {
    using T = std::remove_reference_t<decltype(*pointer)>;
    const std::size_t at = place.take(count * sizeof(T));
    if (memory != nullptr) pointer = reinterpret_cast<T*>(memory + at);
  };
  part(m.states, kSampledRows);
  part(m.bins, kSampledRows * kBins);
  part(m.sums, kSampledRows * kMostPieces);
  part(m.largest, kSampledRows);
  part(m.argmax, argmax_bytes(kSampledRows));
  return place.end;
}

}  // namespace

void penalize(Context& context, Matrix x, const Penalties& how, std::span<const UsedToken> used) {
  const auto count = static_cast<unsigned>(used.size());
  context.launch(penalize_kernel, dim3((count + kThreads - 1) / kThreads), kThreads, 0, x.data,
                 x.stride, how, used.data(), static_cast<int>(count));
}

void log_probabilities(Context& context, Matrix x, const std::int64_t* columns, float* found) {
  context.launch(log_probabilities_kernel, dim3(static_cast<unsigned>(x.rows)), kThreads, 0, x.data,
                 x.stride, static_cast<int>(x.cols), columns, found);
}

bool can_sample(Matrix x) { return x.cols > 0 && x.cols <= std::int64_t{1} << kColumnBits; }

std::size_t sampling_bytes() {
  Memory none{};
  return lay_out(nullptr, none);
}

void sample(Context& context, Matrix x, const Sampling& how, std::span<const double> numbers,
            std::byte* scratch, Found found) {
  Memory m{};
  lay_out(scratch, m);
  argmax(context, x, m.argmax, {m.largest, nullptr});
  const auto rows = static_cast<int>(x.rows), cols = static_cast<int>(x.cols);
  const int wanted = std::clamp(4 * context.multiprocessors() / std::max(rows, 1), 1, kMostPieces);
  const int pieces = std::clamp(cols / kLeastColumns, 1, wanted);
  const Task task = {x.data,          x.stride,  cols,    (cols + pieces - 1) / pieces,
                     how.temperature, m.largest, m.states};
  const dim3 grid(static_cast<unsigned>(pieces), static_cast<unsigned>(rows));
  bool is_cut = false;
  const auto select = [&](auto kernel, int digits) {
    for (int d = 0; d < digits; ++d) {
      context.launch(kernel, grid, kThreads, 0, task, kDigit[d], d == 0, d == digits - 1, is_cut,
                     static_cast<Mass>(how.top_k), how.top_p, m.bins);
    }
    is_cut = true;
  };
  // Of equal ones at the edge top_k keeps all, top_p those of the lower columns.
  if (how.top_k > 0 && how.top_k < cols) select(select_kernel<false>, kDigitsOfValue);
  if (how.top_p < 1) select(select_kernel<true>, kDigits);
  Numbers own{};
  std::copy(numbers.begin(), numbers.end(), own.of);
  context.launch(draw_kernel, grid, kThreads, 0, task, is_cut, how.min_p, own, m.sums, found);
}

}  // namespace infinilm::cuda
