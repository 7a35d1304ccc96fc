#include "model/weights.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "base/convert.hpp"
#include "base/nearest.hpp"
#include "infinilm/error.hpp"
#include "io/mapped_file.hpp"
#include "model/imported.hpp"
#include "model/parameters.hpp"
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
  Loader(const LlamaConfig& config, const Quantization& quantization, const StateDict& state,
         const ImportedModules& imported, Ops& ops, const ProgressCallback& progress)
      : config_(config),
        quantization_(quantization),
        state_(state),
        imported_(imported),
        ops_(ops),
        progress_(progress),
        of_layer_(layer_parameters(config)) {
    for (const auto& [name, tensor] : state) total_ += tensor.nbytes();
  }

  LlamaWeights load() {
    LlamaWeights w;
    w.embedding = vocabulary(embedding_parameter(config_));
    w.layers.reserve(config_.num_hidden_layers);
    for (std::size_t i = 0; i < config_.num_hidden_layers; ++i) w.layers.push_back(layer(i));
    w.final_norm = vector(kFinalNorm);
    if (!config_.tie_word_embeddings) w.head = vocabulary(head_parameters(config_).back());
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

  // The embedding or the head.
  std::unique_ptr<Weight> vocabulary(const ParameterInfo& matrix) {
    if (imported_.holds({matrix})) return pack_imported({matrix});
    if (!quantization_) return pack({matrix});
    return pack_rounded({matrix}, by_rows(8, matrix.shape[1]));
  }

  // Matrices that share their input.
  std::unique_ptr<Weight> linear(const std::vector<ParameterInfo>& matrices) {
    if (imported_.holds(matrices)) return pack_imported(matrices);
    if (!quantization_) return pack(matrices);
    return pack_rounded(matrices, format_of(quantization_, matrices.front().shape[1]));
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
    return ops_.pack_quantized(parts, config_.dtype, quantization_.int8_activations, packed);
  }

  void done_with_rows(const Tensor& matrix, std::int64_t begin, std::int64_t end) {
    const std::size_t row = static_cast<std::size_t>(matrix.shape()[1]) * matrix.itemsize();
    done_with(matrix, static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(end) * row);
  }

  std::unique_ptr<Weight> pack(const std::vector<ParameterInfo>& matrices) {
    std::vector<Tensor> parts;
    for (const ParameterInfo& m : matrices)
      parts.push_back(state_.at(m.name).to(Device()).contiguous());
    if (config_.dtype == DataType::F32) widen_unless_alike(parts);
    std::vector<std::size_t> read(parts.size(), 0);
    return ops_.pack(parts, config_.dtype, [&](std::size_t p, std::size_t, std::size_t end) {
      // Of the stored tensor, whatever was made of it.
      const Tensor& source = state_.at(matrices[p].name);
      const std::size_t stored_end = end / parts[p].itemsize() * source.itemsize();
      done_with(source, read[p], stored_end);
      read[p] = stored_end;
    });
  }

  // What is kept as it is stored must be of one type.
  static void widen_unless_alike(std::vector<Tensor>& parts) {
    const auto is_alike = [&](const Tensor& t) { return t.dtype() == parts.front().dtype(); };
    if (std::all_of(parts.begin(), parts.end(), is_alike)) return;
    for (Tensor& part : parts) part = to_f32(part);
  }

  ParameterInfo matrix(std::size_t layer, const std::string& name) const {
    const auto named = [&](const ParameterInfo& p) { return p.name == name; };
    const auto found = std::find_if(of_layer_.begin(), of_layer_.end(), named);
    return {layer_parameter(layer, name), found->shape};
  }

  Linear linear(std::size_t layer, const std::vector<std::string>& names, bool bias) {
    Linear result;
    std::vector<ParameterInfo> matrices;
    for (const std::string& name : names) matrices.push_back(matrix(layer, name + ".weight"));
    result.weight = linear(matrices);
    for (const std::string& name : names) {
      if (bias) result.biases.push_back(vector(layer_parameter(layer, name + ".bias")));
    }
    for (const VectorParameter& b : result.biases) result.bias_pointers.push_back(b.data());
    return result;
  }

  LayerWeights layer(std::size_t i) {
    const LlamaConfig& c = config_;
    LayerWeights w;
    w.input_norm = vector(layer_parameter(i, "input_layernorm.weight"));
    w.qkv =
        linear(i, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, c.attention_bias);
    if (c.qk_norm) {
      w.q_norm = vector(layer_parameter(i, "self_attn.q_norm.weight"));
      w.k_norm = vector(layer_parameter(i, "self_attn.k_norm.weight"));
    }
    w.o = linear(i, {"self_attn.o_proj"}, c.attention_output_bias);
    w.post_attention_norm = vector(layer_parameter(i, "post_attention_layernorm.weight"));
    w.gate_up = linear(i, {"mlp.gate_proj", "mlp.up_proj"}, c.mlp_bias);
    w.down = linear(i, {"mlp.down_proj"}, c.mlp_bias);
    return w;
  }

  const LlamaConfig& config_;
  const Quantization& quantization_;
  const StateDict& state_;
  const ImportedModules& imported_;
  Ops& ops_;
  const ProgressCallback& progress_;
  std::vector<ParameterInfo> of_layer_;
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

Tensor layer_parameter_of(const LayerWeights& w, Ops& ops, std::string_view name) {
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
    if (p.vector) return p.vector->stored.clone();
    return bias ? p.linear->biases[p.part].stored.clone() : ops.unpack(*p.linear->weight, p.part);
  }
  throw Error(concat("no place is known for the parameter ", quoted(name)));
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
  return Loader(config, quantization, state, imported, ops, progress).load();
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
        return layer_parameter_of(weights.layers[i], ops, p.name);
    }
  }
  throw KeyError(
      concat("no parameter ", quoted(name), "; the nearest are ", nearest_names(name, names)));
}

}  // namespace infinilm
