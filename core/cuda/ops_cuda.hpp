// The Ops of a CUDA device: one stream, own kernels, a library for large products where there is one.
//
// Small operations are put off until the next one is known, and fused with it: rms_norm with the product after it, the rotation
// of k with the way into the cache and that of q with attention, the former with attention too if each sequence has one row,
// and attention and act(gate) * up of many rows with the rounding of the product after them; act(gate) * up of one row leaves what
// the product after it multiplies by. Every other operation, and
// everybody who looks at memory, first has what was put off done. What a fused operation leaves in memory is the same, but for
// q and k after attention, and what last_use() gave up.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cuda/attention.hpp"
#include "cuda/choices.hpp"
#include "cuda/consumers.hpp"
#include "cuda/context.hpp"
#include "cuda/downloads.hpp"
#include "cuda/matrix_product.hpp"
#include "cuda/product.hpp"
#include "cuda/rows.hpp"
#include "cuda/step_plan.hpp"
#include "cuda/weight.hpp"
#include "ops/ops.hpp"

namespace infinilm::cuda {

class OpsCuda final : public Ops {
 public:
  // Throws Error where there is no such device, or one that is too old.
  explicit OpsCuda(int device);
  // Large products by a library.
  void use(std::unique_ptr<MatrixProduct> library);
  // Large products by own kernels, with what the user should know about it.
  void go_without_products(std::string reason);

  Device device() const override { return Device(DeviceType::CUDA, context_->device()); }
  std::shared_ptr<Buffer> allocate(std::size_t nbytes) override;
  std::optional<Room> room() override;
  void upload(const void* host, void* to, std::size_t nbytes) override;
  void download(const void* from, void* host, std::size_t nbytes) override;
  std::shared_ptr<Buffer> download_later(const void* from, std::size_t nbytes) override;
  void copy_bytes(const void* from, void* to, std::size_t nbytes) override;
  void synchronize() override;
  void submit() override;
  void* stream() override;
  void lend(const Buffer& memory, std::uintptr_t stream) override;
  void take_back(const Buffer& memory, std::uintptr_t stream) override;
  void catch_up() override;

  bool can_compute(DataType dtype) const override;
  std::string advice() const override { return advice_; }
  std::unique_ptr<Weight> pack(std::span<const Tensor> parts, DataType compute,
                               const PartPacked& packed) override;
  std::unique_ptr<Weight> pack_quantized(std::span<const QuantizedRows* const> parts,
                                         DataType compute, bool int8_activations,
                                         const RowsPacked& packed) override;
  std::size_t packed_bytes(std::span<const std::int64_t> outputs, std::int64_t inputs,
                           DataType kept, const QuantFormat& quant) const override;
  Tensor unpack(const Weight& weight, std::size_t part) override;
  QuantizedMatrix unpack_quantized(const Weight& weight, std::size_t part) override;

  void embed(std::span<const std::int64_t> ids, const Weight& table, Matrix y) override;
  void rms_norm(Matrix x, const float* w, float eps, Matrix y) override;
  void last_use(Matrix x) override;
  void give_back() override;
  void linear(Matrix x, const Weight& w, std::span<const float* const> bias,
              std::span<const Matrix> y, const std::optional<Matrix>& residual) override;
  void linear_act_mul(Matrix x, const Weight& gate_up, std::span<const float* const> bias,
                      HiddenAct act, Matrix y) override;
  void act_mul(Matrix gate, Matrix up, HiddenAct act, Matrix y) override;
  void add(Matrix x, Matrix y) override;
  void rope(Matrix x, std::int64_t head_dim, Matrix cos, Matrix sin) override;

  std::size_t kv_block_bytes(std::int64_t kv_heads, std::int64_t head_dim,
                             DataType dtype) const override;
  void kv_write(Matrix k, Matrix v, std::span<const SequenceRows> sequences,
                const AttentionShape& shape) override;
  void attention(Matrix q, std::span<const SequenceRows> sequences, const AttentionShape& shape,
                 Matrix y) override;
  void attention_scores(Matrix q, std::span<const SequenceRows> sequences,
                        const AttentionShape& shape, float* scores, std::int64_t keys) override;
  void softmax(Matrix x) override;
  void attention_mix(const float* weights, std::int64_t keys,
                     std::span<const SequenceRows> sequences, const AttentionShape& shape,
                     Matrix y) override;
  void copy(Matrix from, Matrix to) override;
  void copy_each(std::span<const Matrix> from, std::span<const Matrix> to) override;
  std::unique_ptr<DeviceLimits> limits(std::size_t nbytes) override;
  std::unique_ptr<Choice> argmax(Matrix x) override;
  void log_probabilities(Matrix x, std::span<const std::int64_t> columns,
                         std::span<float> found) override;
  void penalize(Matrix x, const Penalties& how, std::span<const UsedToken> used) override;
  std::unique_ptr<Choice> sample(Matrix x, const Sampling& how,
                                 std::span<const double> numbers) override;

  void upload_for_step(const void* host, void* to, std::size_t nbytes) override;
  void begin_step(std::span<const std::int64_t> ids,
                  std::span<const SequenceRows> sequences) override;
  bool can_record() const override { return Context::can_record(); }
  std::unique_ptr<Recording> record(const std::function<void()>& body) override;
  bool replay(Recording& recording, std::span<const std::int64_t> ids,
              std::span<const SequenceRows> sequences, Choice* chosen) override;

 private:
  struct Norm {
    Matrix x;
    const float* w;
    float eps;
    Matrix y;
  };
  struct Turn {
    Matrix x;
    std::int64_t head_dim;
    Matrix cos;
    Matrix sin;
  };

  struct ActMul {
    GateUp from;  // in scratch memory
    HiddenAct act;
    Matrix y;
  };
  // What a product has left beside its result y, for a product of it that comes next.
  struct LeftDigits {
    Matrix y;
    MatrixView by;
    DigitRow digits;
  };
  // Keys and values on their way into a layer's cache.
  struct Store {
    NewTokens tokens;
    Sequences sequences;
    std::vector<SequenceRows> rows;  // the same, as they were given
    AttentionShape shape;
  };

  // What was said of x holds for one product, whatever becomes of it.
  class LastUse {
   public:
    explicit LastUse(OpsCuda& ops) : ops_(ops) {}
    ~LastUse() { ops_.last_use_.reset(); }
    LastUse(const LastUse&) = delete;
    LastUse& operator=(const LastUse&) = delete;

   private:
    OpsCuda& ops_;
  };

  std::byte* scratch(Scratch& buffer, std::size_t nbytes);
  void flush();
  // What is asked for of this memory comes after what others have put on their streams / before what they will.
  void follow_consumers(const void* memory, std::size_t nbytes);
  void let_consumers_follow(const void* memory, std::size_t nbytes);
  void copy_within(const void* from, void* to, std::size_t nbytes);
  // `chosen`: as of StepPlan::begin.
  void begin_step(std::span<const std::int64_t> ids, std::span<const SequenceRows> sequences,
                  const std::int64_t* chosen);
  void flush_all_but_turns();
  void flush_norms();
  void flush_turns();
  void flush_act_mul();
  void flush_store();
  void flush_attention();
  void flush_for_step();
  // The norm whose result x is, if it was put off; it is done by whoever takes it.
  const Norm* norm_before(Matrix x) const;
  // The rotations of q and of k, if just these were put off.
  bool turns_before(Matrix k, const AttentionShape& shape) const;
  // Whether what was put off is the way of this attention's tokens into its cache.
  bool store_before(Matrix q, std::span<const SequenceRows> sequences,
                    const AttentionShape& shape) const;

  // x with its columns as the weight keeps them: gathered, once what was put off before it is done.
  Matrix in_order_of(const CudaWeight& weight, Matrix x);
  bool multiplies_itself(std::int64_t rows, const CudaWeight& weight) const;
  bool needs_range(const CudaWeight& weight) const;
  void multiply_itself(Matrix x, const CudaWeight& weight, std::span<const float* const> bias,
                       std::span<const Matrix> y, const std::optional<Matrix>& residual, int act);
  void multiply_by_library(Matrix x, const CudaWeight& weight, std::span<const float* const> bias,
                           std::span<const Matrix> y, const std::optional<Matrix>& residual);
  // Few rows for quantised weights.
  void round_for_codes(Matrix x, Product& p);
  // x as it is multiplied: rounded, once what was put off before it is done.
  const void* prepare(Matrix x, const CudaWeight& weight, std::int64_t stride);
  // What becomes of x itself: nothing, if it was given up.
  Matrix kept(Matrix x) const;
  // Each part's results to its place of y, rounded to the weight's type.
  void multiply_rounded(Matrix x, const CudaWeight& weight, std::span<const Results> y);
  // All parts by the library, two at once where they are alike; what it declines to round is rounded after it.
  void multiply_parts(Matrix x, const void* prepared, std::int64_t stride, const CudaWeight& weight,
                      std::span<const Results> y);
  // By the library, or by own kernels where it cannot and y is float32; otherwise false. w is of `type`, and new if the operation before
  // has written it.
  bool multiply_dense(Matrix x, const void* prepared, std::int64_t stride, const MatrixView& w,
                      bool is_new, DataType type, bool residual, const Results& y);
  // Two parts from `first` on by one call of the library; false if they are not alike, or it cannot.
  bool multiply_two(Matrix x, const void* prepared, std::int64_t stride, const CudaWeight& weight,
                    std::size_t first, const Results& y, const Results& next);
  bool multiply_part(Matrix x, const void* prepared, std::int64_t stride, const CudaWeight& weight,
                     std::size_t part, bool residual, const Results& y);

  std::shared_ptr<Context> context_;
  std::shared_ptr<Downloads> downloads_;
  std::shared_ptr<Choices> choices_;
  std::unique_ptr<MatrixProduct> library_;
  std::string advice_;
  StepPlan plan_;
  std::vector<Norm> norms_;  // at most one
  std::vector<Turn> turns_;  // at most two
  std::optional<ActMul> act_mul_;
  std::optional<Store> store_;
  std::optional<AttentionCall> attention_;
  std::optional<Matrix> last_use_;
  std::optional<LeftDigits> left_digits_;
  // What is to be sent over with the next step.
  std::vector<std::byte> for_step_;
  void* place_for_step_ = nullptr;
  // Streams to which memory was lent since the last catch_up().
  std::vector<std::uintptr_t> waiting_;
  Consumers consumers_;
  SplitMemory splits_;
  Scratch gathered_, rounded_, digits_, queries_, slab_, gate_, up_, sum_, found_, used_, sampling_;
};

}  // namespace infinilm::cuda
