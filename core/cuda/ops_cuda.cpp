#include "cuda/ops_cuda.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "cuda/product.hpp"
#include "cuda/rows.hpp"
#include "cuda/sampling.hpp"
#include "infinilm/error.hpp"

namespace infinilm::cuda {
namespace {

// Up to so many rows, own kernels read the weights once and faster than a library would.
constexpr std::int64_t kFewRows = 16;
// Rows for which every block of threads may as well normalise x by itself.
constexpr std::int64_t kNormRows = 2;
// Bytes; the driver is faster with more.
constexpr std::size_t kLargeCopy = std::size_t{1} << 20;
// Of a quantised matrix written out for a library, in rows by which its fastest kernels divide.
constexpr std::int64_t kSlabBytes = std::int64_t{1} << 26;
constexpr std::int64_t kSlabRows = 256;

const CudaWeight& cuda_weight(const Weight& weight) {
  return static_cast<const CudaWeight&>(weight);
}

bool is_same(const Matrix& a, const Matrix& b) {
  return a.data == b.data && a.rows == b.rows && a.cols == b.cols && a.stride == b.stride;
}

bool overlap(const Matrix& a, const Matrix& b) {
  const auto end = [](const Matrix& m) { return m.data + (m.rows - 1) * m.stride + m.cols; };
  return a.rows > 0 && b.rows > 0 && std::less<>()(a.data, end(b)) && std::less<>()(b.data, end(a));
}

const float* bias_of(std::span<const float* const> bias, std::size_t part) {
  return bias.empty() ? nullptr : bias[part];
}

Matrix contiguous(std::byte* memory, std::int64_t rows, std::int64_t cols) {
  return {reinterpret_cast<float*>(memory), rows, cols, cols};
}

std::size_t float_bytes(std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(rows * cols) * sizeof(float);
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

OpsCuda::OpsCuda(int device) : context_(std::make_shared<Context>(device)) {}

void OpsCuda::use(std::unique_ptr<MatrixProduct> library) { library_ = std::move(library); }

void OpsCuda::go_without_products(std::string reason) { advice_ = std::move(reason); }

// ---- memory
std::shared_ptr<Buffer> OpsCuda::allocate(std::size_t nbytes) {
  const Context::Use use(*context_);
  void* memory = nullptr;
  try {
    memory = context_->allocate(nbytes);
  } catch (const Error&) {
    flush();  // whoever gives up lets go of what this reads
    throw;
  }
  // Freed in the stream's order: after everything that was asked for with it, but for what is put off.
  std::shared_ptr<void> owner(memory, [context = context_](void* p) { context->free(p); });
  return std::make_shared<Buffer>(memory, nbytes, device(), std::move(owner));
}

std::optional<Room> OpsCuda::room() {
  if (!context_->has_own_memory()) return std::nullopt;
  synchronize();  // memory is freed in the stream's order
  const Context::Use use(*context_);
  return context_->room();
}

std::byte* OpsCuda::scratch(Scratch& buffer, std::size_t nbytes) {
  try {
    return context_->scratch(buffer, nbytes);
  } catch (const Error&) {
    flush();  // as above
    throw;
  }
}

void OpsCuda::upload(const void* host, void* to, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  context_->upload(host, to, nbytes);
}

void OpsCuda::download(const void* from, void* host, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  context_->download(from, host, nbytes);
}

void OpsCuda::copy_bytes(const void* from, void* to, std::size_t nbytes) {
  const Context::Use use(*context_);
  flush();
  // Between kernels another one overlaps with its neighbours, the driver's copy does not.
  const auto place = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  if (nbytes > kLargeCopy || nbytes % 4 != 0 || (place(from) | place(to)) % 4 != 0) {
    return context_->copy_bytes(from, to, nbytes);
  }
  const auto count = static_cast<std::int64_t>(nbytes / 4);
  auto* source = static_cast<float*>(const_cast<void*>(from));
  cuda::copy(*context_, {source, 1, count, count}, {static_cast<float*>(to), 1, count, count});
}

void OpsCuda::synchronize() {
  const Context::Use use(*context_);
  flush();
  context_->synchronize();
}

void OpsCuda::submit() {
  const Context::Use use(*context_);
  flush();
}

void* OpsCuda::stream() {
  submit();
  return context_->stream();
}

void OpsCuda::let_wait(std::uintptr_t stream) {
  const Context::Use use(*context_);
  flush();
  context_->let_wait(stream);
  if (std::find(waiting_.begin(), waiting_.end(), stream) == waiting_.end()) {
    waiting_.push_back(stream);
  }
}

void OpsCuda::catch_up(std::uintptr_t stream) {
  try {
    const Context::Use use(*context_);
    context_->catch_up(stream);
  } catch (const Error&) {
    // Whoever drops memory can do nothing about a lost device; the next operation will say so.
  }
}

void OpsCuda::catch_up() {
  const Context::Use use(*context_);
  for (const std::uintptr_t stream : std::exchange(waiting_, {})) context_->catch_up(stream);
}

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
  cuda::act_mul(*context_, a.gate, a.up, a.act, a.y);
}

void OpsCuda::flush_attention() {
  if (!attention_) return;
  const AttentionCall call = *std::exchange(attention_, std::nullopt);
  cuda::attention(*context_, call, splits_);
}

void OpsCuda::flush_store() {
  if (!store_) return;
  const Store s = *std::exchange(store_, std::nullopt);
  kv_store(*context_, s.tokens, s.sequences, kv_view(s.shape));
}

void OpsCuda::flush_all_but_turns() {
  flush_attention();
  flush_norms();
  flush_act_mul();
  flush_store();
}

void OpsCuda::flush() {
  flush_all_but_turns();
  flush_turns();
}

const OpsCuda::Norm* OpsCuda::norm_before(Matrix x) const {
  const bool found = !norms_.empty() && is_same(norms_.back().y, x);
  return found ? &norms_.back() : nullptr;
}

bool OpsCuda::turns_before(Matrix k, const AttentionShape& shape) const {
  if (turns_.size() != 2) return false;
  const Turn &q = turns_[0], &turned_k = turns_[1];
  return is_same(turned_k.x, k) && q.x.rows == k.rows && q.head_dim == shape.head_dim &&
         turned_k.head_dim == shape.head_dim && is_same(q.cos, turned_k.cos) &&
         is_same(q.sin, turned_k.sin) && q.x.data != k.data;
}

bool OpsCuda::store_before(Matrix q, std::span<const SequenceRows> sequences,
                           const AttentionShape& shape) const {
  return store_ && is_same(store_->tokens.rotation.q, q) && store_->shape == shape &&
         can_take_tokens(shape, has_one_row_each(sequences));
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
  return cuda_weight(weight).unpack(part);
}

QuantizedMatrix OpsCuda::unpack_quantized(const Weight& weight, std::size_t part) {
  const Context::Use use(*context_);
  flush();
  return cuda_weight(weight).unpack_quantized(part);
}

// ---- rows
void OpsCuda::embed(std::span<const std::int64_t> ids, const Weight& table, Matrix y) {
  const Context::Use use(*context_);
  flush();
  if (ids.empty()) return;
  const CudaWeight& rows = cuda_weight(table);
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
                          &sampling_, &splits_.partial, &splits_.arrived}) {
    context_->drop(*buffer);
  }
}

Matrix OpsCuda::kept(Matrix x) const {
  const bool given_up = last_use_ && is_same(*last_use_, x);
  return given_up ? Matrix{nullptr, x.rows, x.cols, x.stride} : x;
}

void OpsCuda::act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) {
  const Context::Use use(*context_);
  flush();
  cuda::act_mul(*context_, gate, up, act, y);
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

void OpsCuda::argmax(Matrix x, std::span<Chosen> found) {
  const Context::Use use(*context_);
  flush();
  const std::size_t bytes = (found.size_bytes() + 15) / 16 * 16;
  std::byte* memory = scratch(found_, bytes + argmax_bytes(x.rows));
  auto* on_device = reinterpret_cast<Chosen*>(memory);
  cuda::argmax(*context_, x, memory + bytes, on_device);
  context_->download(on_device, found.data(), found.size_bytes());
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
  std::byte* memory = scratch(found_, columns.size_bytes() + found.size_bytes());
  context_->upload(columns.data(), memory, columns.size_bytes());
  auto* on_device = reinterpret_cast<float*>(memory + columns.size_bytes());
  cuda::log_probabilities(*context_, x, reinterpret_cast<const std::int64_t*>(memory), on_device);
  context_->download(on_device, found.data(), found.size_bytes());
}

bool OpsCuda::sample(Matrix x, const Sampling& how, std::span<const double> numbers,
                     std::span<Chosen> found) {
  if (!can_sample(x)) return false;
  const Context::Use use(*context_);
  flush();
  std::byte* memory = context_->cleared_scratch(sampling_, sampling_bytes());
  for (std::int64_t first = 0; first < x.rows; first += kSampledRows) {
    const auto count = std::min<std::int64_t>(kSampledRows, x.rows - first);
    const auto part = [&](auto all) {
      return all.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    };
    const Chosen* on_device = cuda::sample(*context_, {x.row(first), count, x.cols, x.stride}, how,
                                           part(numbers), memory);
    context_->download(on_device, part(found).data(), part(found).size_bytes());
  }
  return true;
}

// ---- products
Matrix OpsCuda::in_order_of(const CudaWeight& weight, Matrix x) {
  if (weight.order() == nullptr) return x;
  flush();
  const Matrix gathered =
      contiguous(scratch(gathered_, float_bytes(x.rows, x.cols)), x.rows, x.cols);
  cuda::gather_columns(*context_, x, weight.order(), gathered);
  return gathered;
}

bool OpsCuda::multiplies_itself(std::int64_t rows) const {
  return library_ == nullptr || rows <= kFewRows;
}

void OpsCuda::multiply_few(Matrix x, const CudaWeight& weight, std::span<const float* const> bias,
                           std::span<const Matrix> y, bool residual, int act) {
  x = in_order_of(weight, x);
  Product p;
  p.x = x.data;
  p.x_stride = x.stride;
  p.rows = static_cast<int>(x.rows);
  p.compute = weight.compute();
  p.residual = residual;
  p.act = act;
  p.part_count = static_cast<int>(weight.parts());
  check<Error>(p.part_count <= kMostParts, "a weight of ", p.part_count,
               " parts: expected at most ", kMostParts, " on CUDA");
  for (std::size_t i = 0; i < weight.parts(); ++i) {
    const Matrix out = y[std::min(i, y.size() - 1)];  // one for both of act(gate) * up
    p.parts[i] = {weight.view(i), bias_of(bias, i), out.data, out.stride};
  }
  const Norm* norm = norm_before(x);
  const auto changes = [&](const Matrix& m) {
    return std::any_of(y.begin(), y.end(), [&](const Matrix& out) { return overlap(out, m); });
  };
  if (norm != nullptr && x.rows <= kNormRows && turns_.empty() && !changes(norm->x)) {
    Product fused = p;
    fused.x = norm->x.data;
    fused.x_stride = norm->x.stride;
    fused.norm = norm->w;
    fused.eps = norm->eps;
    fused.normed = kept(x).data;
    fused.normed_stride = x.stride;
    if (can_normalise(*context_, fused)) {
      p = fused;
      norms_.clear();
    }
  }
  if (p.norm == nullptr && p.compute != DataType::F32 && x.rows > kNormRows) {
    if (weight.quant()) {
      round_for_codes(x, p);
    } else {
      p.rounded_stride = (x.cols + 7) / 8 * 8;
      p.rounded = static_cast<const std::uint16_t*>(prepare(x, weight, p.rounded_stride));
    }
  }
  flush();
  multiply(*context_, p);
}

void OpsCuda::round_for_codes(Matrix x, Product& p) {
  flush();
  const int run = run_columns(p.parts[0].matrix.unit);
  std::byte* memory = scratch(rounded_, code_rows_bytes(x, run));
  const CodeRows rows = cuda::round_for_codes(*context_, x, run, memory);
  p.rounded = rows.x;
  p.rounded_stride = rows.stride;
  p.notes = rows.notes;
  p.runs = rows.runs;
  p.note_stride = rows.note_stride;
}

const void* OpsCuda::prepare(Matrix x, const CudaWeight& weight, std::int64_t stride) {
  if (weight.compute() == DataType::F32) {
    flush();
    return x.data;
  }
  const Norm* norm = norm_before(x);
  auto* rounded = reinterpret_cast<std::uint16_t*>(
      scratch(rounded_, static_cast<std::size_t>(x.rows * stride) * 2));
  if (norm != nullptr) {
    cuda::rms_norm(*context_, norm->x, norm->w, norm->eps, kept(x), rounded, stride,
                   weight.compute());
    norms_.clear();
  } else if (attention_ && is_same(attention_->y, x)) {
    attention_->y = kept(x);
    attention_->rounded = rounded;
    attention_->rounded_stride = stride;
    attention_->rounded_type = weight.compute();
    flush_attention();
  } else if (act_mul_ && is_same(act_mul_->y, x)) {
    const ActMul& a = *act_mul_;
    cuda::act_mul(*context_, a.gate, a.up, a.act, kept(x), rounded, stride, weight.compute());
    act_mul_.reset();
  } else {
    flush();
    cuda::round_rows(*context_, x, rounded, stride, weight.compute());
  }
  return rounded;
}

void OpsCuda::multiply_dense(Matrix x, const void* prepared, std::int64_t stride,
                             const MatrixView& w, bool is_new, DataType type, bool residual,
                             Matrix y) {
  const std::int64_t size = type == DataType::F32 ? 4 : 2;
  const bool done =
      library_->multiply(context_->stream(), type, x.rows, w.outputs, x.cols, prepared, stride,
                         w.data, w.row_bytes / size, residual ? 1.0f : 0.0f, y.data, y.stride);
  if (done) return;
  Product p;
  p.x = x.data;
  p.x_stride = x.stride;
  p.rows = static_cast<int>(x.rows);
  p.compute = type;
  if (type != DataType::F32) {
    p.rounded = static_cast<const std::uint16_t*>(prepared);
    p.rounded_stride = stride;
  }
  p.are_weights_new = is_new;
  p.residual = residual;
  p.part_count = 1;
  p.parts[0] = {w, nullptr, y.data, y.stride};
  multiply(*context_, p);
}

void OpsCuda::multiply_part(Matrix x, const void* prepared, std::int64_t stride,
                            const CudaWeight& weight, std::size_t part, bool residual, Matrix y) {
  const MatrixView& w = weight.view(part);
  const DataType type = weight.compute();
  if (!weight.quant() && weight.dtype() == type) {
    return multiply_dense(x, prepared, stride, w, false, type, residual, y);
  }
  const std::int64_t size = type == DataType::F32 ? 4 : 2;
  MatrixView slab;
  slab.layout = layout_of(type);
  slab.inputs = w.inputs;
  slab.row_bytes = (x.cols + 7) / 8 * 8 * size;
  const std::int64_t most =
      std::max<std::int64_t>(1, kSlabBytes / (slab.row_bytes * kSlabRows)) * kSlabRows;
  const std::int64_t rows = std::min<std::int64_t>(most, w.outputs);
  std::byte* memory = scratch(slab_, static_cast<std::size_t>(rows * slab.row_bytes));
  slab.data = memory;
  for (std::int64_t begin = 0; begin < w.outputs; begin += most) {
    const std::int64_t count = std::min(most, w.outputs - begin);
    slab.outputs = static_cast<int>(count);
    widen_rows(*context_, w, begin, count, type, memory, slab.row_bytes / size);
    multiply_dense(x, prepared, stride, slab, true, type, residual,
                   {y.data + begin, y.rows, count, y.stride});
  }
}

void OpsCuda::multiply_many(Matrix x, const CudaWeight& weight, std::span<const float* const> bias,
                            std::span<const Matrix> y, bool residual) {
  x = in_order_of(weight, x);
  const std::int64_t stride = weight.compute() == DataType::F32 ? x.stride : (x.cols + 7) / 8 * 8;
  const void* prepared = prepare(x, weight, stride);
  flush();
  for (std::size_t part = 0; part < weight.parts(); ++part) {
    const float* b = bias_of(bias, part);
    const bool apart = residual && b != nullptr;  // y + (x W^T + b): in the order of linear and add
    const Matrix out =
        apart ? contiguous(scratch(sum_, float_bytes(x.rows, y[part].cols)), x.rows, y[part].cols)
              : y[part];
    multiply_part(x, prepared, stride, weight, part, residual && !apart, out);
    if (b != nullptr) add_bias(*context_, b, out);
    if (apart) cuda::add(*context_, out, y[part]);
  }
}

void OpsCuda::linear(Matrix x, const Weight& w, std::span<const float* const> bias,
                     std::span<const Matrix> y, bool residual) {
  const Context::Use use(*context_);
  const LastUse last(*this);
  const CudaWeight& weight = cuda_weight(w);
  if (x.rows == 0) return;
  if (multiplies_itself(x.rows)) {
    multiply_few(x, weight, bias, y, residual, -1);
  } else {
    multiply_many(x, weight, bias, y, residual);
  }
}

void OpsCuda::linear_act_mul(Matrix x, const Weight& gate_up, std::span<const float* const> bias,
                             HiddenAct act, Matrix y) {
  const Context::Use use(*context_);
  const LastUse last(*this);
  const CudaWeight& weight = cuda_weight(gate_up);
  if (x.rows == 0) return;
  if (multiplies_itself(x.rows) && x.rows <= kMostActRows) {
    return multiply_few(x, weight, bias, {&y, 1}, false, static_cast<int>(act));
  }
  flush_act_mul();  // of which gate and up lie where these will
  const std::size_t bytes = float_bytes(x.rows, y.cols);
  const std::array<Matrix, 2> parts = {contiguous(scratch(gate_, bytes), x.rows, y.cols),
                                       contiguous(scratch(up_, bytes), x.rows, y.cols)};
  linear(x, gate_up, bias, parts, false);
  act_mul_ = {parts[0], parts[1], act, y};
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
    if (can_rotate(shape, one_row_each)) {
      tokens.rotation.q = {};
      turn_of_q = turns_[0];
    }
    turns_.clear();
  }
  flush_turns();
  if (k.rows == 0) return;
  const int tile = tile_tokens(shape, one_row_each);
  store_ = {tokens, plan_.sequences(*context_, sequences, tile), shape};
  if (!tokens.rotation.is_there() || !can_take_tokens(shape, one_row_each)) flush_store();
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
  } else if (turns_.size() == 1 && is_same(turns_[0].x, q) && can_rotate(shape, one_row_each)) {
    call.tokens.rotation = {q, turns_[0].cos, turns_[0].sin};
    turns_.clear();
  }
  flush();
  call.q = q;
  call.y = y;
  call.shape = shape;
  call.one_row_each = one_row_each;
  call.tile_tokens = tile_tokens(shape, call.one_row_each);
  call.sequences = plan_.sequences(*context_, sequences, call.tile_tokens);
  call.tile_count = plan_.tile_count();
  for (const SequenceRows& s : sequences) call.longest = std::max(call.longest, s.past + s.rows);
  attention_ = call;
  if (multiplies_itself(q.rows) || !can_round(shape) || y.cols % 8 != 0) flush_attention();
}

void OpsCuda::attention_scores(Matrix q, std::span<const SequenceRows> sequences,
                               const AttentionShape& shape, float* scores, std::int64_t keys) {
  const Context::Use use(*context_);
  flush();
  const int tokens = tile_tokens(shape, has_one_row_each(sequences));
  cuda::attention_scores(*context_, q, plan_.sequences(*context_, sequences, tokens), shape, scores,
                         keys);
}

void OpsCuda::attention_mix(const float* weights, std::int64_t keys,
                            std::span<const SequenceRows> sequences, const AttentionShape& shape,
                            Matrix y) {
  const Context::Use use(*context_);
  flush();
  const int tokens = tile_tokens(shape, has_one_row_each(sequences));
  cuda::attention_mix(*context_, weights, keys, plan_.sequences(*context_, sequences, tokens),
                      shape, y);
}

// ---- steps and recordings
void OpsCuda::begin_step(std::span<const std::int64_t> ids,
                         std::span<const SequenceRows> sequences) {
  const Context::Use use(*context_);
  flush();
  plan_.begin(*context_, ids, sequences);
}

std::unique_ptr<Ops::Recording> OpsCuda::record(const std::function<void()>& body) {
  const Context::Use use(*context_);
  flush();
  context_->begin_recording();
  try {
    body();
    flush();
  } catch (...) {
    norms_.clear();
    turns_.clear();
    attention_.reset();
    act_mul_.reset();
    store_.reset();
    last_use_.reset();
    context_->abandon_recording();
    throw;
  }
  return std::make_unique<CudaRecording>(context_, context_->end_recording());
}

bool OpsCuda::replay(Recording& recording, std::span<const std::int64_t> ids,
                     std::span<const SequenceRows> sequences) {
  const Context::Use use(*context_);
  begin_step(ids, sequences);
  auto& r = static_cast<CudaRecording&>(recording);
  if (r.epoch != context_->epoch()) return false;
  context_->launch_graph(r.graph);
  return true;
}

}  // namespace infinilm::cuda
