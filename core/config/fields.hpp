// The table of LlamaConfig's fields, which drives reading, writing and `field_names`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "infinilm/config.hpp"
#include "io/json.hpp"

namespace infinilm {

struct HeadDimField {};  // reached through head_dim() and set_head_dim()

using FieldMember =
    std::variant<DataType LlamaConfig::*, std::size_t LlamaConfig::*, double LlamaConfig::*,
                 bool LlamaConfig::*, std::string LlamaConfig::*,
                 std::optional<std::size_t> LlamaConfig::*,
                 std::optional<std::int64_t> LlamaConfig::*, TokenIds LlamaConfig::*,
                 std::optional<RopeScaling> LlamaConfig::*, HeadDimField>;

struct ConfigField {
  const char* name;
  FieldMember member;
};

const std::vector<ConfigField>& config_fields();

// The fields that no HF file has; a document with one of them was written by `to_json` and is taken literally.
inline constexpr const char* kOwnFields[] = {"attention_output_bias", "qk_norm",
                                             "decoupled_head_dim"};

// What `hidden_act` and `model_type` can be.
const std::vector<std::string>& supported_activations();
const std::vector<std::string>& supported_model_types();

// Reads `value` into one field; `literal` allows what `check` would refuse. `rope_scaling` and head_dim are not
// read here. Throws ValueError.
void read_field(LlamaConfig& config, const ConfigField& field, const Json& value, bool literal);
// null for an empty optional; ids always as a list.
Json field_to_json(const LlamaConfig& config, const ConfigField& field);

}  // namespace infinilm
