// A model's configuration, with HuggingFace's field names and semantics.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "infinilm/dtype.hpp"

namespace infinilm {

/// One id or several; every binding accepts an integer or a sequence of them and gives a list.
using TokenIds = std::vector<std::int64_t>;

/// What every kind of model has.
struct ModelConfig {
  DataType dtype = DataType::F32;  ///< compute type
  std::string model_type;
  std::string name_or_path;

  virtual ~ModelConfig() = default;
  virtual bool validate() const = 0;
  virtual void check() const = 0;
  virtual std::string to_json() const = 0;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;

 protected:
  ModelConfig() = default;
  ModelConfig(const ModelConfig&) = default;
  ModelConfig& operator=(const ModelConfig&) = default;
};

/// HF's `rope_scaling` (without `rope_theta`), https://huggingface.co/docs/transformers `RopeParameters`.
/// Fields that a type does not use are empty.
struct RopeScaling {
  std::string rope_type = "default";  ///< default, linear, dynamic, llama3, yarn, longrope
  std::optional<double> factor;
  std::optional<double> attention_factor;
  std::optional<double> beta_fast, beta_slow;
  std::optional<double> mscale, mscale_all_dim;
  std::optional<bool> truncate;
  std::optional<double> low_freq_factor, high_freq_factor;
  std::optional<std::size_t> original_max_position_embeddings;
  std::vector<double> short_factor, long_factor;

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

/// A value: copy, compare, write to JSON. The defaults are those of a config made by hand; a file's omitted
/// keys take HF's defaults for its `model_type` instead.
struct LlamaConfig : ModelConfig {
  std::size_t vocab_size = 32000;
  std::size_t hidden_size = 4096;
  std::size_t intermediate_size = 11008;
  std::size_t num_hidden_layers = 32;
  std::size_t num_attention_heads = 32;
  std::size_t num_key_value_heads = 32;
  bool decoupled_head_dim = false;
  std::size_t max_position_embeddings = 2048;
  double rope_theta = 10000.0;
  std::optional<RopeScaling> rope_scaling;
  double rms_norm_eps = 1e-6;
  std::string hidden_act = "silu";
  bool use_cache = true;
  bool attention_bias = true;  ///< q, k and v (True by default for 9G7B)
  bool attention_output_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  bool qk_norm = false;
  std::optional<std::size_t> sliding_window;
  double attention_dropout = 0.0;
  double initializer_range = 0.02;
  std::size_t pretraining_tp = 1;
  std::optional<std::int64_t> pad_token_id;
  TokenIds bos_token_id = {1};
  TokenIds eos_token_id = {2};

  LlamaConfig();

  /// Follows `hidden_size / num_attention_heads` (0 if that divides by zero) until set explicitly.
  std::size_t head_dim() const noexcept;
  void set_head_dim(std::size_t value) noexcept { head_dim_ = value; }
  bool head_dim_is_set() const noexcept { return head_dim_.has_value(); }

  /// num_key_value_heads * head_dim: columns of k and v.
  std::size_t kv_dim() const noexcept { return num_key_value_heads * head_dim(); }

  /// The longest sequence: max_position_embeddings, for dynamic RoPE times its factor.
  std::size_t max_sequence_length() const noexcept;

  bool validate() const override;  ///< check() without the exception
  void check()
      const override;  ///< ValueError that lists every violated constraint with its numbers

  /// `rope_scaling` as JSON ("null" for none), for languages without optional structs.
  /// Throws ValueError naming the field and the value; the old value stays then.
  std::string rope_scaling_json() const;
  void set_rope_scaling_json(const std::string& text);

  /// `quantization_config` of a file that is quantised already, as JSON ("null" for none).
  std::string quantization_config_json() const;

  /// HF's config.json. Throws ValueError naming the key, what was expected and what was found; for an
  /// unsupported architecture or option too. Keys that mean nothing to us survive a round trip.
  static LlamaConfig from_json(const std::string& text);
  /// `directory`/config.json. FileNotFoundError, OsError, ValueError.
  static LlamaConfig from_pretrained(const std::string& directory);
  /// Everything, also what HF cannot express.
  std::string to_json() const override;
  /// Writes `directory`/config.json (making the directory) that Transformers reads as the same model; ValueError for
  /// what it cannot express (several bos ids; biases other than none, q/k/v/o together).
  void save_pretrained(const std::string& directory) const;

  /// The public fields' names in the order of the documentation.
  static const std::vector<std::string>& field_names();

  // By the values of all fields (a head_dim that was set to what it would be anyway is no difference) and unknown keys.
  friend bool operator==(const LlamaConfig& a, const LlamaConfig& b);

 private:
  std::optional<std::size_t> head_dim_;
  std::string extra_ = "{}";  ///< keys of the file that mean nothing to us, as a JSON object
};

}  // namespace infinilm
