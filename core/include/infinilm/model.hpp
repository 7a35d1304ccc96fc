// LlamaForCausalLM: load a checkpoint, run it, look inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "infinilm/config.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/quantization.hpp"
#include "infinilm/tensor.hpp"

namespace infinilm {

class Llama;         // the device-free mathematics, core/model
class KvCacheState;  // core/model/kv_cache.hpp
class HookConnection;
class Choice;      // core/ops/choice.hpp
struct PassAhead;  // core/model/pass_ahead.hpp

/// Keys and values of a batch of sequences, and the ids they belong to. A step that fails leaves it as it was. Belongs
/// to the model that made it; one forward pass at a time (RuntimeError otherwise).
class KvCache {
 public:
  explicit KvCache(std::shared_ptr<KvCacheState> state) : state_(std::move(state)) {}
  std::size_t batch_size() const;
  DataType dtype() const;  ///< of keys and values: F32, BF16 or I8
  /// Tokens held for sequence `slot`. IndexError.
  std::size_t length(std::size_t slot = 0) const;
  /// Their ids, in order.
  TokenIds tokens(std::size_t slot = 0) const;
  /// Forgets all but the first `length` tokens of sequence `slot`. ValueError if it holds fewer.
  void truncate(std::size_t length, std::size_t slot = 0);
  void clear();
  std::size_t nbytes() const;  ///< memory held
  const std::shared_ptr<KvCacheState>& state() const noexcept { return state_; }

 private:
  std::shared_ptr<KvCacheState> state_;
};

/// Which rows of logits a forward pass computes.
enum class LogitRows { All, Last };

/// A parameter of a model, under its HF name.
struct ParameterInfo {
  std::string name;
  Shape shape;
};

struct LoadOptions {
  std::string device = "cpu";
  std::optional<DataType> dtype;  ///< compute type; none: what the checkpoint's config names
  ProgressCallback progress;      ///< may be null
  std::optional<DataType> kv_cache_dtype;  ///< of the caches; none: the compute type
  Quantization
      quantization;  ///< of the weights that the checkpoint has not quantised, made while loading
};

class LlamaForCausalLM {
 public:
  /// A model without weights, to be filled by `load_state_dict`. ValueError for an invalid config. One that names
  /// float16 computes in float32 on the CPU. `kv_cache_dtype`: F32, BF16 or I8, by default the compute type. `quantization`: of
  /// the weights that it will be given.
  explicit LlamaForCausalLM(const LlamaConfig& config, const std::string& device = "cpu",
                            std::optional<DataType> kv_cache_dtype = std::nullopt,
                            const Quantization& quantization = {});
  /// Reads a HuggingFace directory as it is. FileNotFoundError, ValueError, OsError; never half loaded.
  static std::shared_ptr<LlamaForCausalLM> from_pretrained(const std::string& directory,
                                                           const LoadOptions& options,
                                                           Frontend& frontend);
  ~LlamaForCausalLM();

  LlamaConfig config() const;
  Device device() const;
  DataType kv_cache_dtype() const;  ///< of the caches it makes
  /// Of its weights: what was asked for, or what the checkpoint brought (none if its linear layers are not all alike).
  Quantization quantization() const;
  bool is_loaded() const noexcept;
  std::size_t nbytes() const;  ///< of the packed weights
  /// Of the weights that every forward pass reads from end to end: all but an embedding that is not the head too.
  std::size_t nbytes_per_pass() const;

  /// input_ids: int64 [tokens] or [batch, tokens] -> float32 logits [tokens, V] or [batch, tokens, V];
  /// with `logits_to_keep` = n > 0 of the last n tokens only. Continues `cache` if given. IndexError for a token outside of the
  /// vocabulary, ValueError for a sequence past the limit or a batch that is not the cache's.
  Tensor forward(const Tensor& input_ids, const std::shared_ptr<KvCache>& cache,
                 std::size_t logits_to_keep, Frontend& frontend);

  /// Sequences of different lengths in one step, without padding: `ids[i]` continues slot `slots[i]` of
  /// `cache`. Logits of each sequence's last token, [sequences, V], or of all tokens, [all tokens, V].
  Tensor forward_packed(const std::vector<TokenIds>& ids, const std::vector<std::size_t>& slots,
                        const std::shared_ptr<KvCache>& cache, LogitRows rows, Frontend& frontend);

  /// For a loop that goes on with what it has chosen, as Generation does: asks the device for the pass of one more token for each of `slots`, those
  /// that `chosen` finds for the last pass on `cache`, as soon as it has found them. Null where that cannot be; no device but CUDA's can,
  /// and only if nobody has to see anything before the pass has ended.
  std::unique_ptr<PassAhead> forward_ahead(const std::vector<std::size_t>& slots,
                                           const std::shared_ptr<KvCache>& cache, Choice& chosen,
                                           Frontend& frontend);
  /// Puts the tokens of a pass, known now, into the cache, those of `slots`, which are among its own, and gives captures what they keep. False,
  /// and the pass has to be run anew, if since it was asked for the cache was used, weights were loaded, or hooks or captures came or
  /// went, and if captures would see rows of other slots.
  bool complete(const PassAhead& pass, const std::vector<std::size_t>& slots, const TokenIds& ids);

  /// An empty cache. `dtype`: F32, BF16 or I8, by default `kv_cache_dtype()`.
  std::shared_ptr<KvCache> new_cache(std::size_t batch_size = 1,
                                     std::optional<DataType> dtype = std::nullopt) const;

  /// HF names -> tensors. Strict: missing or unexpected names and wrong shapes are a ValueError that lists
  /// them, and the model stays as it was. Tensors may be F32, F16 or BF16 and are copied.
  void load_state_dict(const std::map<std::string, Tensor>& state);
  /// Copies in HF's names and layouts, in the dtype of the weights; of quantised ones what they stand for, F32.
  std::map<std::string, Tensor> state_dict() const;
  /// Writes a HuggingFace directory that loads again to the same bits: config.json and model.safetensors, with the weights as they
  /// are kept; quantised ones in compressed-tensors' pack-quantized format. `progress(done, total)` hears bytes. Each file is
  /// renamed into place when both are complete, so that a failure (OsError, with the path) leaves what was there. ValueError
  /// for what HF's config.json cannot express, and for quantised weights that are not finite.
  void save_pretrained(const std::string& directory,
                       const ProgressCallback& progress = nullptr) const;
  std::vector<std::string> parameter_names() const;
  Tensor get_parameter(const std::string& name) const;  ///< KeyError names the nearest

  /// `registry` may be null: detach. With a prefix p the points are called p_layer0_….
  void set_hook_registry(std::shared_ptr<HookRegistry> registry, const std::string& prefix = "");
  std::shared_ptr<HookRegistry> hook_registry() const;
  std::vector<HookPoint> hook_points() const;

 private:
  std::shared_ptr<const Llama> loaded() const;         ///< Error if there are no weights yet
  std::shared_ptr<HookConnection> connection() const;  ///< the hooks of now
  /// What a forward pass begins with: the hooks of now and its number.
  std::pair<std::shared_ptr<HookConnection>, std::int64_t> begin_step();

  const LlamaConfig config_;
  const Device device_;
  const DataType kv_cache_dtype_;
  const Quantization quantization_;
  mutable std::mutex mutex_;  ///< guards what follows
  std::shared_ptr<const Llama> llama_;
  std::shared_ptr<HookConnection> hooks_;
  std::int64_t steps_ = 0;
};

/// A model's hook points from its config alone, in the order of execution.
std::vector<HookPoint> hook_points(const LlamaConfig& config, const std::string& prefix = "");

/// Names and shapes of a model's parameters from its config alone, in HF's order.
std::vector<ParameterInfo> parameters(const LlamaConfig& config);

/// How many loaded models are alive in the process: for leak tests.
std::int64_t live_models() noexcept;

}  // namespace infinilm
