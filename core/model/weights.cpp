#include "model/weights.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "base/convert.hpp"
#include "base/nearest.hpp"
#include "infinilm/error.hpp"
#include "io/mapped_file.hpp"
#include "model/arena.hpp"
#include "model/imported.hpp"
#include "model/memory_advice.hpp"
#include "model/parameters.hpp"
#include "model/weight_plan.hpp"
#include "quant/quantized_rows.hpp"

namespace infinilm {
namespace {

// Complaints are listed up to this many: a wrong directory would give thousands.
constexpr std::size_t kMostComplaints = 8;

// Collects what is wrong with a state dict.
class Review {
 public:
  Review(const StateDict& state, const ImportedModules& imported, std::string source)
      : state_(state), imported_(imported), source_(std::move(source)) {}

  void expect(const ParameterInfo& parameter) {
    for (const ExpectedTensor& tensor : imported_.tensors_of(parameter)) {
      if (const auto fault = fault_of(tensor, state_)) complain(*fault);
    }
  }
  bool is_full() const noexcept { return complaints_.size() >= kMostComplaints; }
  void finish() const {
    if (complaints_.empty()) return;
    std::string text = source_ + " does not fit the config:";
    for (const std::string& c : complaints_) text.append("\n  ").append(c);
    throw ValueError(text + (is_full() ? "\n  …" : ""));
  }

 private:
  void complain(std::string text) {
    if (!is_full()) complaints_.push_back(std::move(text));
  }

  const StateDict& state_;
  const ImportedModules& imported_;
  std::string source_;
  std::vector<std::string> complaints_;
};

// Layer by layer, stopping at the first few complaints: the number of layers is the file's word.
void review(const LlamaConfig& config, const StateDict& state, const ImportedModules& imported,
            const std::string& source) {
  Review review(state, imported, source);
  review.expect(embedding_parameter(config));
  const std::vector<ParameterInfo> of_layer = layer_parameters(config);
  for (std::size_t i = 0; i < config.num_hidden_layers && !review.is_full(); ++i) {
    for (const ParameterInfo& p : of_layer) review.expect({layer_parameter(i, p.name), p.shape});
  }
  for (const ParameterInfo& p : head_parameters(config)) review.expect(p);
  review.finish();
}

// Takes the parameters of one model out of a state dict that has passed the review.
class Loader {
 public:
  Loader(const LlamaConfig& config, bool int8_activations, const StateDict& state,
         const ImportedModules& imported, const WeightPlan& plan, Ops& ops,
         const ProgressCallback& progress)
      : config_(config),
        int8_activations_(int8_activations),
        state_(state),
        imported_(imported),
        plan_(plan),
        ops_(ops),
        progress_(progress) {
    for (const auto& [name, tensor] : state) total_ += tensor.nbytes();
  }

  LlamaWeights load() {
    LlamaWeights w;
    w.embedding = weight(plan_.embedding());
    w.layers.reserve(config_.num_hidden_layers);
    for (std::size_t i = 0; i < config_.num_hidden_layers; ++i) w.layers.push_back(layer(i));
    w.final_norm = vector(kFinalNorm);
    if (!config_.tie_word_embeddings) w.head = weight(plan_.head());
    if (progress_) progress_(total_, total_);
    return w;
  }

 private:
  // The bytes [begin, end) of a tensor of the state dict are where they belong, and not needed any more.
  void done_with(const Tensor& tensor, std::size_t begin, std::size_t end) {
    forget_pages(tensor, begin, end);
    done_ += end - begin;
    if (progress_) progress_(done_, total_);
  }

  VectorParameter vector(const std::string& name) {
    const Tensor& source = state_.at(name);
    const Tensor stored = source.to(Device()).clone();
    done_with(source, 0, source.nbytes());
    return {stored, to_f32(stored).to(ops_.device())};
  }

  std::unique_ptr<Weight> weight(const Stack& stack) {
    if (imported_.holds(stack.matrices)) return pack_imported(stack.matrices);
    if (const QuantFormat format = plan_.rounding(stack)) {
      return pack_rounded(stack.matrices, format);
    }
    return pack(stack.matrices, plan_.kept_dtype(stack));
  }

  std::unique_ptr<Weight> pack_imported(const std::vector<ParameterInfo>& matrices) {
    return pack_quantized(imported_.open(matrices),
                          [&](std::size_t p, std::int64_t begin, std::int64_t end) {
                            const std::int64_t outputs = matrices[p].shape[0];
                            for (const ExpectedTensor& tensor : imported_.tensors_of(matrices[p])) {
                              const auto found = state_.find(tensor.name);
                              if (found == state_.end()) continue;
                              if (tensor.by_rows) done_with_rows(found->second, begin, end);
                              if (!tensor.by_rows && end == outputs)
                                done_with(found->second, 0, found->second.nbytes());
                            }
                          });
  }

  std::unique_ptr<Weight> pack_rounded(const std::vector<ParameterInfo>& matrices,
                                       const QuantFormat& format) {
    std::vector<std::unique_ptr<QuantizedRows>> rows;
    for (const ParameterInfo& m : matrices)
      rows.push_back(quantize(state_.at(m.name).to(Device()).contiguous(), format));
    return pack_quantized(rows, [&](std::size_t p, std::int64_t begin, std::int64_t end) {
      done_with_rows(state_.at(matrices[p].name), begin, end);
    });
  }

  std::unique_ptr<Weight> pack_quantized(const std::vector<std::unique_ptr<QuantizedRows>>& rows,
                                         const RowsPacked& packed) {
    std::vector<const QuantizedRows*> parts;
    for (const auto& part : rows) parts.push_back(part.get());
    return ops_.pack_quantized(parts, config_.dtype, int8_activations_, packed);
  }

  void done_with_rows(const Tensor& matrix, std::int64_t begin, std::int64_t end) {
    const std::size_t row = static_cast<std::size_t>(matrix.shape()[1]) * matrix.itemsize();
    done_with(matrix, static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(end) * row);
  }

  std::unique_ptr<Weight> pack(const std::vector<ParameterInfo>& matrices, DataType kept) {
    std::vector<Tensor> parts;
    for (const ParameterInfo& m : matrices) {
      const Tensor stored = state_.at(m.name).to(Device()).contiguous();
      const bool is_widened = kept == DataType::F32 && stored.dtype() != DataType::F32;
      parts.push_back(is_widened ? to_f32(stored) : stored);
    }
    std::vector<std::size_t> read(parts.size(), 0);
    return ops_.pack(parts, config_.dtype, [&](std::size_t p, std::size_t, std::size_t end) {
      // Of the stored tensor, whatever was made of it.
      const Tensor& source = state_.at(matrices[p].name);
      const std::size_t stored_end = end / parts[p].itemsize() * source.itemsize();
      done_with(source, read[p], stored_end);
      read[p] = stored_end;
    });
  }

  Linear linear(std::size_t layer, std::span<const char* const> names, bool bias) {
    Linear result;
    result.weight = weight(plan_.linear(layer, names));
    for (const std::string name : names) {
      if (bias) result.biases.push_back(vector(layer_parameter(layer, name + ".bias")));
    }
    for (const VectorParameter& b : result.biases) result.bias_pointers.push_back(b.data());
    return result;
  }

  LayerWeights layer(std::size_t i) {
    const LlamaConfig& c = config_;
    LayerWeights w;
    w.input_norm = vector(layer_parameter(i, "input_layernorm.weight"));
    w.qkv = linear(i, kQkv, c.attention_bias);
    if (c.qk_norm) {
      w.q_norm = vector(layer_parameter(i, "self_attn.q_norm.weight"));
      w.k_norm = vector(layer_parameter(i, "self_attn.k_norm.weight"));
    }
    w.o = linear(i, kO, c.attention_output_bias);
    w.post_attention_norm = vector(layer_parameter(i, "post_attention_layernorm.weight"));
    w.gate_up = linear(i, kGateUp, c.mlp_bias);
    w.down = linear(i, kDown, c.mlp_bias);
    return w;
  }

  const LlamaConfig& config_;
  bool int8_activations_;
  const StateDict& state_;
  const ImportedModules& imported_;
  const WeightPlan& plan_;
  Ops& ops_;
  const ProgressCallback& progress_;
  std::size_t done_ = 0;
  std::size_t total_ = 0;
};

// Where a parameter of a layer lives: a part of a linear layer (weight or bias), or a vector.
struct Place {
  std::string_view name;
  const Linear* linear;
  std::size_t part;
  const VectorParameter* vector;
};

ParameterPlace place_in(const LayerWeights& w, std::string_view name) {
  const std::array<Place, 11> places = {{
      {"self_attn.q_proj", &w.qkv, 0, nullptr},
      {"self_attn.k_proj", &w.qkv, 1, nullptr},
      {"self_attn.v_proj", &w.qkv, 2, nullptr},
      {"self_attn.o_proj", &w.o, 0, nullptr},
      {"self_attn.q_norm", nullptr, 0, &w.q_norm},
      {"self_attn.k_norm", nullptr, 0, &w.k_norm},
      {"mlp.gate_proj", &w.gate_up, 0, nullptr},
      {"mlp.up_proj", &w.gate_up, 1, nullptr},
      {"mlp.down_proj", &w.down, 0, nullptr},
      {"input_layernorm", nullptr, 0, &w.input_norm},
      {"post_attention_layernorm", nullptr, 0, &w.post_attention_norm},
  }};
  for (const Place& p : places) {
    if (!name.starts_with(p.name)) continue;
    const bool bias = name.substr(p.name.size()) == ".bias";
    if (p.vector) return {nullptr, 0, &p.vector->stored};
    if (bias) return {nullptr, 0, &p.linear->biases[p.part].stored};
    return {p.linear->weight.get(), p.part, nullptr};
  }
  throw Error(concat("no place is known for the parameter ", quoted(name)));
}

Tensor copy_of(const ParameterPlace& place, Ops& ops) {
  return place.weight ? ops.unpack(*place.weight, place.part) : place.stored->clone();
}

std::size_t vector_bytes(const std::vector<VectorParameter>& list) {
  std::size_t total = 0;
  for (const VectorParameter& v : list) total += v.f32.nbytes();
  return total;
}

}  // namespace

std::size_t LlamaWeights::nbytes() const {
  std::size_t total = embedding->nbytes() + (head ? head->nbytes() : 0) + final_norm.f32.nbytes();
  for (const LayerWeights& w : layers) {
    for (const Linear* l : {&w.qkv, &w.o, &w.gate_up, &w.down}) {
      total += l->weight->nbytes() + vector_bytes(l->biases);
    }
    total += w.input_norm.f32.nbytes() + w.post_attention_norm.f32.nbytes();
    total += w.q_norm ? w.q_norm.f32.nbytes() + w.k_norm.f32.nbytes() : 0;
  }
  return total;
}

std::vector<std::string> unexpected_names(const LlamaConfig& config, const StateDict& state) {
  StateDict rest = state;
  const ImportedModules imported(config, state, "");
  for (const ParameterInfo& p : parameters(config)) {
    for (const ExpectedTensor& tensor : imported.tensors_of(p)) rest.erase(tensor.name);
  }
  std::vector<std::string> names;
  for (const auto& [name, tensor] : rest) {
    const bool rotary_buffer = name.ends_with(".rotary_emb.inv_freq");
    const bool tied_head = config.tie_word_embeddings && name.starts_with("lm_head.");
    if (!rotary_buffer && !tied_head) names.push_back(name);
  }
  return names;
}

LlamaWeights load_weights(const LlamaConfig& config, const Quantization& quantization,
                          const StateDict& state, const std::string& source, Ops& ops,
                          const ProgressCallback& progress) {
  const ImportedModules imported(config, state, source);
  review(config, state, imported, source);
  const WeightPlan plan(config, config.dtype, quantization, state, imported);
  std::optional<Room> room = ops.room();
  const std::size_t needed = room ? plan.nbytes(ops) : 0;
  if (room && needed > room->free) {  // other models may have some to spare
    Arena::give_back_all(ops);
    room = ops.room();
  }
  const auto refusal = [&](const std::string& begin) {
    return OutOfMemory(begin +
                       weights_advice(config, quantization, state, imported, source, ops, room));
  };
  // Before gigabytes are read. What the plan counts is the least that is allocated.
  if (room && needed > room->free) {
    throw refusal(concat("out of memory on ", quoted(ops.device().str()), ": "));
  }
  try {
    return Loader(config, quantization.int8_activations, state, imported, plan, ops, progress)
        .load();
  } catch (const OutOfMemory& error) {
    throw refusal(concat(error.what(), "; "));
  }
}

void for_each_parameter(
    const LlamaConfig& config, const LlamaWeights& weights,
    const std::function<void(const std::string& name, const ParameterPlace& place)>& visit) {
  visit(kEmbedTokens, {weights.embedding.get(), 0, nullptr});
  const std::vector<ParameterInfo> of_layer = layer_parameters(config);
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    for (const ParameterInfo& p : of_layer)
      visit(layer_parameter(i, p.name), place_in(weights.layers[i], p.name));
  }
  visit(kFinalNorm, {nullptr, 0, &weights.final_norm.stored});
  if (weights.head) visit(kLmHead, {weights.head.get(), 0, nullptr});
}

Tensor parameter_of(const LlamaConfig& config, const LlamaWeights& weights, Ops& ops,
                    const std::string& name) {
  if (name == kEmbedTokens) return ops.unpack(*weights.embedding, 0);
  if (name == kLmHead) return ops.unpack(weights.lm_head(), 0);
  if (name == kFinalNorm) return weights.final_norm.stored.clone();
  std::vector<std::string> names;
  for (const ParameterInfo& p : parameters(config)) names.push_back(p.name);
  const std::vector<ParameterInfo> of_layer = layer_parameters(config);
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    for (const ParameterInfo& p : of_layer) {
      if (name == layer_parameter(i, p.name))
        return copy_of(place_in(weights.layers[i], p.name), ops);
    }
  }
  throw KeyError(
      concat("no parameter ", quoted(name), "; the nearest are ", nearest_names(name, names)));
}

}  // namespace infinilm
