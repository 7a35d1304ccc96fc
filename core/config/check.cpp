// The constraints between fields, safe for any values in them.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "config/fields.hpp"
#include "config/rope_scaling.hpp"
#include "infinilm/config.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr std::size_t kMostLayers =
    65536;  // each has names and hook points, made before any weight is seen

class Violations {
 public:
  explicit Violations(const LlamaConfig& config) : c_(config) {
    sizes();
    heads();
    products();
    numbers();
    names();
    rope();
  }
  const std::vector<std::string>& list() const { return list_; }

 private:
  template <class... Parts>
  void expect(bool ok, const Parts&... parts) {
    if (!ok) list_.push_back(concat(parts...));
  }

  void sizes() {
    for (const ConfigField& field : config_fields()) {
      if (const auto* member = std::get_if<std::size_t LlamaConfig::*>(&field.member)) {
        expect(c_.**member > 0, field.name, " must be above 0, found 0");
      }
    }
    expect(c_.num_hidden_layers <= kMostLayers, "num_hidden_layers must be at most ", kMostLayers,
           ", found ", c_.num_hidden_layers);
    expect(!c_.sliding_window || *c_.sliding_window > 0, "sliding_window must be above 0, found 0");
  }

  void heads() {
    const std::size_t hidden = c_.hidden_size, heads = c_.num_attention_heads,
                      kv = c_.num_key_value_heads;
    const std::size_t dim = c_.head_dim();
    expect(heads == 0 || hidden % heads == 0, "hidden_size (", hidden,
           ") must be a multiple of num_attention_heads (", heads, ")");
    expect(kv == 0 || heads % kv == 0, "num_attention_heads (", heads,
           ") must be a multiple of num_key_value_heads (", kv, ")");
    expect(c_.decoupled_head_dim || heads == 0 || dim == hidden / heads, "head_dim (", dim,
           ") must be hidden_size / num_attention_heads (", hidden, " / ", heads, " = ",
           heads ? hidden / heads : 0, ") unless decoupled_head_dim is set");
    expect(heads == 0 || dim > 0, "head_dim must be above 0, found 0");
    expect(dim % 2 == 0, "head_dim must be even, because RoPE rotates pairs, found ", dim);
  }

  // No tensor and no length may leave 63 bits, in bytes of the widest element.
  void products() {
    const auto fits = [&](const char* name, std::initializer_list<std::size_t> factors) {
      std::int64_t product = 16;  // two stacked matrices of 8 bytes
      bool overflow = false;
      std::string numbers;
      for (const std::size_t factor : factors) {
        overflow = overflow || __builtin_mul_overflow(product, factor, &product);
        numbers += concat(numbers.empty() ? "" : " * ", factor);
      }
      expect(!overflow, name, " (", numbers, ") is too large for 63 bits");
    };
    const std::size_t hidden = c_.hidden_size, dim = c_.head_dim();
    fits("vocab_size * hidden_size", {c_.vocab_size, hidden});
    fits("intermediate_size * hidden_size", {c_.intermediate_size, hidden});
    fits("num_attention_heads * head_dim * hidden_size", {c_.num_attention_heads, dim, hidden});
    fits("num_key_value_heads * head_dim * hidden_size", {c_.num_key_value_heads, dim, hidden});
    fits("max_position_embeddings", {c_.max_position_embeddings});
    fits("sliding_window", {c_.sliding_window.value_or(1)});
  }

  void numbers() {
    const auto positive = [&](const char* name, double value) {
      expect(std::isfinite(value) && value > 0, name, " must be a finite number above 0, found ",
             value);
    };
    positive("rms_norm_eps", c_.rms_norm_eps);
    positive("rope_theta", c_.rope_theta);
    expect(c_.attention_dropout >= 0 && c_.attention_dropout <= 1,
           "attention_dropout must be from 0 to 1, found ", c_.attention_dropout);
    expect(std::isfinite(c_.initializer_range) && c_.initializer_range >= 0,
           "initializer_range must be a finite number of 0 or more, found ", c_.initializer_range);
  }

  void names() {
    const auto one_of = [&](const char* field, const std::string& value,
                            const std::vector<std::string>& known) {
      std::string list;
      for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
      expect(std::find(known.begin(), known.end(), value) != known.end(), field, " must be one of ",
             list, ", found ", quoted(value));
    };
    one_of("model_type", c_.model_type, supported_model_types());
    one_of("hidden_act", c_.hidden_act, supported_activations());
    expect(c_.dtype == DataType::F32 || c_.dtype == DataType::F16 || c_.dtype == DataType::BF16,
           "dtype must be float32, float16 or bfloat16, found ", name_of(c_.dtype));
  }

  void rope() {
    if (!c_.rope_scaling) return;
    const RopeScaling& s = *c_.rope_scaling;
    for (const std::string& problem : rope_scaling_problems(s))
      list_.push_back("rope_scaling: " + problem);
    const std::size_t original =
        s.original_max_position_embeddings.value_or(c_.max_position_embeddings);
    expect(original > 0, "rope_scaling: original_max_position_embeddings must be above 0, found 0");
    if (s.rope_type == "dynamic") {
      expect(c_.head_dim() > 2,
             "rope_scaling: rope_type \"dynamic\" needs a head_dim above 2, found ", c_.head_dim());
      const double longest = static_cast<double>(c_.max_position_embeddings) * s.factor.value_or(1);
      expect(longest >= 1 && longest < 0x1p60, "rope_scaling: max_position_embeddings (",
             c_.max_position_embeddings, ") times factor (", s.factor.value_or(1),
             ") must be from 1 to 2^60");
    } else if (s.rope_type == "yarn") {
      expect(c_.rope_theta > 1,
             "rope_scaling: rope_type \"yarn\" needs a rope_theta above 1, found ", c_.rope_theta);
    } else if (s.rope_type == "longrope") {
      lengths("short_factor", s.short_factor);
      lengths("long_factor", s.long_factor);
      expect(original > 1,
             "rope_scaling: rope_type \"longrope\" needs original_max_position_embeddings above 1, "
             "found ",
             original);
    }
  }

  void lengths(const char* name, const std::vector<double>& factors) {
    expect(factors.size() == c_.head_dim() / 2, "rope_scaling: ", name,
           " must have head_dim / 2 = ", c_.head_dim() / 2, " numbers, found ", factors.size());
    expect(std::all_of(factors.begin(), factors.end(),
                       [](double f) { return std::isfinite(f) && f > 0; }),
           "rope_scaling: ", name, " must have numbers above 0");
  }

  const LlamaConfig& c_;
  std::vector<std::string> list_;
};

}  // namespace

bool LlamaConfig::validate() const { return Violations(*this).list().empty(); }

void LlamaConfig::check() const {
  const Violations violations(*this);
  if (violations.list().empty()) return;
  std::string text = "the config is invalid";
  for (const std::string& violation : violations.list())
    text += (&violation == &violations.list()[0] ? ": " : "; ") + violation;
  throw ValueError(text);
}

}  // namespace infinilm
