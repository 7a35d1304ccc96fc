#include <algorithm>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "config/fields.hpp"
#include "infinilm/config.hpp"

namespace infinilm {

LlamaConfig::LlamaConfig() { model_type = "llama"; }

std::size_t LlamaConfig::head_dim() const noexcept {
  if (head_dim_) return *head_dim_;
  return num_attention_heads == 0 ? 0 : hidden_size / num_attention_heads;
}

std::size_t LlamaConfig::max_sequence_length() const noexcept {
  if (!rope_scaling || rope_scaling->rope_type != "dynamic") return max_position_embeddings;
  const double longest =
      static_cast<double>(max_position_embeddings) * rope_scaling->factor.value_or(1.0);
  return longest >= 1 && longest < 0x1p60 ? static_cast<std::size_t>(longest)
                                          : max_position_embeddings;
}

const std::vector<std::string>& LlamaConfig::field_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const ConfigField& field : config_fields()) list.emplace_back(field.name);
    return list;
  }();
  return names;
}

bool operator==(const LlamaConfig& a, const LlamaConfig& b) {
  const auto equal = [&](const ConfigField& field) {
    return std::visit(
        [&](auto member) {
          if constexpr (std::is_same_v<decltype(member), HeadDimField>) {
            return a.head_dim() == b.head_dim();
          } else {
            return a.*member == b.*member;
          }
        },
        field.member);
  };
  return a.extra_ == b.extra_ && std::all_of(config_fields().begin(), config_fields().end(), equal);
}

}  // namespace infinilm
