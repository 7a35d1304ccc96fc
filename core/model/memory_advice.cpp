#include "model/memory_advice.hpp"

#include <algorithm>

#include "infinilm/error.hpp"
#include "model/weight_plan.hpp"

namespace infinilm {
namespace {

// Another way to load the same checkpoint.
struct Alternative {
  const char* text;
  DataType compute;
  Quantization quantization;
};

std::string verdict(std::size_t nbytes, const std::optional<Room>& room) {
  if (!room) return "";
  if (nbytes > room->free) return " (more than is free)";
  return concat(" (and leave ", bytes_text(room->free - nbytes), " for the KV cache and steps)");
}

// Bytes of device memory that a step takes for each of its rows, about: what it computes in a layer, float32, in an arena that
// rounds sizes up by a quarter at most; gate and up, and a product's input in 16 bits, where a device writes these too.
std::size_t row_bytes(const LlamaConfig& c) {
  const std::size_t q = c.num_attention_heads * c.head_dim(), kv = c.kv_dim();
  const std::size_t floats =
      3 * c.hidden_size + c.head_dim() + 2 * q + 2 * kv + 3 * c.intermediate_size;
  return floats * 5 + 2 * std::max({c.hidden_size, c.intermediate_size, q});
}

// The largest n up to `most` for which needed(n), which grows with n, is no more than `free`.
template <class Needed>
std::size_t largest_that_fits(std::size_t most, std::size_t free, Needed needed) {
  std::size_t fits = 0;
  for (std::size_t above = most + 1; above - fits > 1;) {
    const std::size_t middle = fits + (above - fits) / 2;
    (needed(middle) <= free ? fits : above) = middle;
  }
  return fits;
}

// How much longer each sequence of a step can become.
class StepRoom {
 public:
  StepRoom(const LlamaConfig& config, const StepSize& step, std::size_t free)
      : config_(config), step_(step), free_(free) {
    const std::size_t longest = *std::ranges::max_element(step.past);
    const std::size_t limit = config.max_sequence_length();
    // A config may allow more than can be counted.
    const std::size_t blocks = free / step.kv.block_bytes() + 1;
    most_ = std::min(limit - std::min(limit, longest), blocks * kKvBlock);
  }

  // In one step: each new token is a row of it.
  std::size_t at_once() const {
    return largest_that_fits(most_, free_, [&](std::size_t n) {
      const std::size_t rows = n * sequences();
      const bool all_logits = step_.logit_rows == step_.rows;
      return cache(n) + activations(rows, all_logits ? rows : logit_rows());
    });
  }
  // In steps of one token each.
  std::size_t one_by_one() const {
    return largest_that_fits(most_, free_, [&](std::size_t n) {
      return cache(n) + activations(sequences(), sequences());
    });
  }

 private:
  std::size_t sequences() const { return step_.past.size(); }
  std::size_t logit_rows() const { return static_cast<std::size_t>(step_.logit_rows); }
  std::size_t cache(std::size_t n) const {
    std::size_t blocks = 0;
    for (const std::size_t past : step_.past) blocks += block_count(past + n) - block_count(past);
    return blocks * step_.kv.block_bytes();
  }
  std::size_t activations(std::size_t rows, std::size_t logit_rows) const {
    return rows * row_bytes(config_) + logit_rows * config_.vocab_size * sizeof(float);
  }

  const LlamaConfig& config_;
  const StepSize& step_;
  std::size_t free_;
  std::size_t most_;
};

// "1 sequence", "2 sequences".
template <class Count>
std::string counted(Count count, const char* what) {
  return concat(count, " ", what, count == 1 ? "" : "s");
}

std::string what_would_fit(const LlamaConfig& config, const StepSize& step, const Room& room) {
  const StepRoom fits(config, step, room.free);
  const bool is_decode = step.rows == static_cast<std::int64_t>(step.past.size());
  std::string text =
      concat("; with the ", bytes_text(room.free), " that are free again, each sequence can have ");
  if (!is_decode) text += concat("about ", fits.at_once(), " new tokens in one step, ");
  return text + concat("about ", fits.one_by_one(), " more in steps of one token");
}

}  // namespace

std::string weights_advice(const LlamaConfig& config, const Quantization& quantization,
                           const StateDict& state, const ImportedModules& imported,
                           const std::string& source, const Ops& ops,
                           const std::optional<Room>& room) {
  const auto needed = [&](DataType compute, const Quantization& rounded) {
    return WeightPlan(config, compute, rounded, state, imported).nbytes(ops);
  };
  const std::size_t asked = needed(config.dtype, quantization);
  const std::string rounded =
      is_quantized_already(config) && !quantization ? "the checkpoint's" : quantization.str();
  std::string text = concat("the weights of ", source, " need ", bytes_text(asked), " (dtype ",
                            name_of(config.dtype), ", quantization ", rounded, ")");
  if (room) {
    text += concat(", ", bytes_text(room->free), " of ", bytes_text(room->total),
                   " were free before loading");
  }
  bool any = false;
  for (const Alternative& choice : {Alternative{"dtype=\"bfloat16\"", DataType::BF16, {}},
                                    Alternative{"quantization=\"int8\"", config.dtype, {"int8"}},
                                    Alternative{"quantization=\"int4\"", config.dtype, {"int4"}}}) {
    const std::size_t nbytes = needed(choice.compute, choice.quantization);
    if (nbytes >= asked) continue;
    text += concat("; ", choice.text, " would need ", bytes_text(nbytes), verdict(nbytes, room));
    any = any || !room || nbytes <= room->free;
  }
  return any ? text : text + "; a device with more memory is needed, or device=\"cpu\"";
}

std::string step_advice(const LlamaConfig& config, const StepSize& step, const Ops& ops,
                        const std::optional<Room>& room) {
  const std::size_t longest = *std::ranges::max_element(step.past);
  std::string text =
      concat("the step has ", counted(step.rows, "new token"), " in ",
             counted(step.past.size(), "sequence"), ", after up to ", longest,
             " in the KV cache; the cache takes ", bytes_text(step.kv.block_bytes() / kKvBlock),
             " a token in ", name_of(step.kv.dtype));
  if (step.kv.dtype != DataType::I8) {
    const std::size_t layer_bytes =
        ops.kv_block_bytes(static_cast<std::int64_t>(config.num_key_value_heads),
                           static_cast<std::int64_t>(config.head_dim()), DataType::I8);
    text += concat(" (", bytes_text(step.kv.layers * layer_bytes / kKvBlock),
                   " with kv_cache_dtype=\"int8\")");
  }
  text += concat(", the step about ", bytes_text(row_bytes(config)), " a new token");
  if (room) text += what_would_fit(config, step, *room);
  const bool are_several = step.past.size() > 1;
  return text + (are_several ? "; fewer sequences at a time or" : ";") +
         " quantised weights leave more room";
}

}  // namespace infinilm
