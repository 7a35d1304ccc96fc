// LlamaForCausalLM and its cache. The Frontend comes first here, so that what follows can have defaults; the languages supply
// it without the caller.
%ignore infinilm::Quantization::operator bool;
%immutable infinilm::Quantization::bits;
%immutable infinilm::Quantization::group_size;
%immutable infinilm::Quantization::int8_activations;
%include "infinilm/quantization.hpp"

%shared_ptr(infinilm::KvCache)
%shared_ptr(infinilm::LlamaForCausalLM)

%ignore infinilm::KvCache::KvCache;
%ignore infinilm::KvCache::state;
%ignore infinilm::LoadOptions;
%ignore infinilm::LogitRows;
%ignore infinilm::live_models;
%ignore infinilm::hook_points;
%ignore infinilm::parameters;
%immutable infinilm::ParameterInfo::name;
%immutable infinilm::ParameterInfo::shape;
%nodefaultctor infinilm::ParameterInfo;

%ignore infinilm::LlamaForCausalLM::from_pretrained(const std::string&, const LoadOptions&, Frontend&);
%ignore infinilm::LlamaForCausalLM::forward(const Tensor&, const std::shared_ptr<KvCache>&, std::size_t, Frontend&);
%ignore infinilm::LlamaForCausalLM::forward_packed(const std::vector<TokenIds>&, const std::vector<std::size_t>&,
                                                   const std::shared_ptr<KvCache>&, LogitRows, Frontend&);
%ignore infinilm::LlamaForCausalLM::forward_ahead;
%ignore infinilm::LlamaForCausalLM::complete;
%ignore infinilm::LlamaForCausalLM::save_pretrained(const std::string&, const ProgressCallback&) const;
%feature("docstring") infinilm::LlamaForCausalLM
    "A Llama-family language model: loads a HuggingFace directory, runs it, and lets one look inside.";
%include "infinilm/model.hpp"

%extend infinilm::LlamaForCausalLM {
  /// Reads a HuggingFace directory as it is. `dtype`: the compute type, by default what the checkpoint's config names.
  /// `progress(done, total)` hears how many bytes are read. `kv_cache_dtype`: of the caches, by default the compute type.
  /// `quantization`: rounds the weights while they are loaded. Never half loaded.
  static std::shared_ptr<infinilm::LlamaForCausalLM> from_pretrained(
      infinilm::Frontend& frontend, const std::string& directory, const std::string& device = "cpu",
      std::optional<infinilm::DataType> dtype = std::nullopt,
      infinilm::ProgressCallback progress = nullptr,
      std::optional<infinilm::DataType> kv_cache_dtype = std::nullopt,
      const infinilm::Quantization& quantization = infinilm::Quantization()) {
    return infinilm::LlamaForCausalLM::from_pretrained(
        directory, {device, dtype, std::move(progress), kv_cache_dtype, quantization}, frontend);
  }

  /// Writes a HuggingFace directory that loads again to the same bits: config.json and model.safetensors, with the weights as
  /// they are kept; quantised ones in compressed-tensors' pack-quantized format. `progress(done, total)` hears how many bytes are
  /// written. A failure leaves what was there.
  void save_pretrained(const std::string& directory, infinilm::ProgressCallback progress = nullptr) const {
    $self->save_pretrained(directory, progress);
  }

  /// input_ids: int64 [tokens] or [batch, tokens] -> float32 logits [tokens, V] or [batch, tokens, V]; with
  /// `logits_to_keep` = n > 0 of the last n tokens only. Continues `cache` if given.
  infinilm::Tensor forward(infinilm::Frontend& frontend, const infinilm::Tensor& input_ids,
                           const std::shared_ptr<infinilm::KvCache>& cache = nullptr,
                           std::size_t logits_to_keep = 0) {
    return $self->forward(input_ids, cache, logits_to_keep, frontend);
  }

  /// Sequences of different lengths in one step, without padding: `ids[i]` continues slot `slots[i]` of `cache`.
  /// Logits of each sequence's last token [sequences, V], or of all tokens [all tokens, V] with `all_rows`.
  infinilm::Tensor forward_packed(infinilm::Frontend& frontend, const std::vector<infinilm::TokenIds>& ids,
                                  const std::vector<std::size_t>& slots,
                                  const std::shared_ptr<infinilm::KvCache>& cache, bool all_rows = false) {
    const auto rows = all_rows ? infinilm::LogitRows::All : infinilm::LogitRows::Last;
    return $self->forward_packed(ids, slots, cache, rows, frontend);
  }
}

%inline %{
namespace infinilm_swig {
/// A model's hook points from its config alone, in the order of execution.
std::vector<infinilm::HookPoint> hook_points(const infinilm::LlamaConfig& config, const std::string& prefix = "") {
  return infinilm::hook_points(config, prefix);
}
/// Names and shapes of a model's parameters from its config alone, in HuggingFace's order.
std::vector<infinilm::ParameterInfo> parameters(const infinilm::LlamaConfig& config) {
  return infinilm::parameters(config);
}
}  // namespace infinilm_swig
%}
