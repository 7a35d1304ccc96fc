#include "model/llama.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "infinilm/model.hpp"

namespace infinilm {
namespace {

std::atomic<std::int64_t> models{0};

// Rows of the head between two looks for Ctrl-C: about a layer's work.
constexpr std::int64_t kHeadRows = 256;

}  // namespace

std::int64_t live_models() noexcept { return models.load(std::memory_order_relaxed); }

Llama::Llama(LlamaConfig config, std::shared_ptr<Ops> ops, LlamaWeights weights)
    : config_(std::move(config)),
      ops_(std::move(ops)),
      arena_(ops_),
      weights_(std::move(weights)),
      rotary_(config_),
      decode_(ops_) {
  layers_.reserve(weights_.layers.size());
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    layers_.emplace_back(config_, weights_.layers[i], static_cast<int>(i));
  }
  models.fetch_add(1, std::memory_order_relaxed);
}

Llama::~Llama() { models.fetch_sub(1, std::memory_order_relaxed); }

std::shared_ptr<KvCacheState> Llama::new_cache(std::size_t batch_size, DataType dtype) const {
  const std::size_t layer_bytes =
      ops_->kv_block_bytes(static_cast<std::int64_t>(config_.num_key_value_heads),
                           static_cast<std::int64_t>(config_.head_dim()), dtype);
  return std::make_shared<KvCacheState>(identity_, arena_,
                                        KvLayout{dtype, layer_bytes, layers_.size()}, batch_size);
}

void Llama::give_back() const {
  decode_.forget();
  Arena::give_back_all(*ops_);
}

Tensor Llama::forward(Step& step, std::span<const std::int64_t> logit_rows,
                      const Shape& leading) const {
  Shape shape = leading;
  shape.push_back(static_cast<std::int64_t>(config_.vocab_size));
  const auto body = [&](const RopeTables& rope) {
    Activation logits = run(step, rope, logit_rows);
    if (step.wants(Point::Logits)) step.show(Point::Logits, -1, logits, leading, {logits.cols()});
    return logits;
  };
  if (ops_->can_record()) {
    step.poll();  // first: what hears it may set hooks
    if (RecordedDecode::takes(step, logit_rows.size())) {
      return decode_.run(step, rotary_, body).reshape(shape);
    }
  }
  Activation angles = step.make(2 * rotary_.half());
  const RopeTables rope = rotary_.tables(*ops_, step.batch.sequences, angles.view());
  ops_->begin_step(step.batch.ids, step.batch.sequences);
  return body(rope).deliver(shape);
}

std::optional<Tensor> Llama::forward_ahead(Step& step) const {
  step.poll();
  if (!RecordedDecode::takes(step, step.batch.sequences.size())) return std::nullopt;
  return decode_.run_ahead(step, rotary_);
}

Activation Llama::run(Step& step, const RopeTables& rope,
                      std::span<const std::int64_t> logit_rows) const {
  Activation x = embed(step);
  for (const DecoderLayer& layer : layers_) {
    step.poll();
    layer.forward(step, rope, x);
  }
  step.poll();

  step.point(Point::BeforeFinalNorm, -1, x, {x.cols()});
  Activation h = step.make(x.cols());
  ops_->rms_norm(x.view(), weights_.final_norm.data(), static_cast<float>(config_.rms_norm_eps),
                 h.view());
  step.point(Point::FinalNorm, -1, h, {h.cols()});
  step.point(Point::HiddenStatesBeforeLmHead, -1, h, {h.cols()});

  return head(step, h, logit_rows);
}

Activation Llama::embed(Step& step) const {
  Activation x = step.make(static_cast<std::int64_t>(config_.hidden_size));
  ops_->embed(step.batch.ids, *weights_.embedding, x.view());
  step.point(Point::EmbedTokens, -1, x, {x.cols()});
  return x;
}

// Rows of h; h itself if all are wanted.
Activation Llama::pick(Step& step, Activation& h, std::span<const std::int64_t> rows) const {
  if (static_cast<std::int64_t>(rows.size()) == h.rows()) return h;
  Activation picked = step.make(static_cast<std::int64_t>(rows.size()), h.cols());
  const Matrix from = h.view(), to = picked.view();
  for (std::int64_t r = 0; r < to.rows; ++r) {
    ops_->copy(from.slice(rows[static_cast<std::size_t>(r)], 1), to.slice(r, 1));
  }
  return picked;
}

Activation Llama::head(Step& step, Activation& h, std::span<const std::int64_t> logit_rows) const {
  const auto rows = static_cast<std::int64_t>(logit_rows.size());
  Activation picked = pick(step, h, logit_rows);
  Activation logits = step.make(rows, static_cast<std::int64_t>(config_.vocab_size));
  const Matrix to = picked.view(), out = logits.view();
  for (std::int64_t r = 0; r < rows; r += kHeadRows) {
    const std::int64_t count = std::min(kHeadRows, rows - r);
    const std::array<Matrix, 1> y = {out.slice(r, count)};
    ops_->linear(to.slice(r, count), weights_.lm_head(), {}, y);
    step.poll();
  }
  return logits;
}

}  // namespace infinilm
