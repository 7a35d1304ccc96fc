#include "config/rope_scaling.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <variant>

#include "config/json_values.hpp"
#include "infinilm/error.hpp"

namespace infinilm {
namespace {

using Member =
    std::variant<std::optional<double> RopeScaling::*, std::optional<bool> RopeScaling::*,
                 std::optional<std::size_t> RopeScaling::*, std::vector<double> RopeScaling::*>;
struct Field {
  const char* name;
  Member member;
};

// All but rope_type.
const std::array<Field, 12> kFields{{
    {"factor", &RopeScaling::factor},
    {"attention_factor", &RopeScaling::attention_factor},
    {"beta_fast", &RopeScaling::beta_fast},
    {"beta_slow", &RopeScaling::beta_slow},
    {"mscale", &RopeScaling::mscale},
    {"mscale_all_dim", &RopeScaling::mscale_all_dim},
    {"truncate", &RopeScaling::truncate},
    {"low_freq_factor", &RopeScaling::low_freq_factor},
    {"high_freq_factor", &RopeScaling::high_freq_factor},
    {"original_max_position_embeddings", &RopeScaling::original_max_position_embeddings},
    {"short_factor", &RopeScaling::short_factor},
    {"long_factor", &RopeScaling::long_factor},
}};

struct Type {
  const char* name;
  std::vector<const char*> required;
};
const std::array<Type, 6> kTypes{{{"default", {}},
                                  {"linear", {"factor"}},
                                  {"dynamic", {"factor"}},
                                  {"llama3", {"factor", "low_freq_factor", "high_freq_factor"}},
                                  {"yarn", {"factor"}},
                                  {"longrope", {"short_factor", "long_factor"}}}};
constexpr const char* kTypeNames = "default, linear, dynamic, llama3, yarn or longrope";

bool is_known(const std::string& name) {
  return name == "rope_type" || name == "type" ||
         std::any_of(kFields.begin(), kFields.end(),
                     [&](const Field& f) { return f.name == name; });
}

bool has(const RopeScaling& scaling, const char* name) {
  const auto field = std::find_if(kFields.begin(), kFields.end(),
                                  [&](const Field& f) { return std::string_view(f.name) == name; });
  return std::visit(
      [&](auto member) {
        if constexpr (requires { (scaling.*member).has_value(); }) {
          return (scaling.*member).has_value();
        } else {
          return !(scaling.*member).empty();
        }
      },
      field->member);
}

void read_into(std::optional<double>& target, const std::string& key, const Json& value) {
  target = read_number(key, value);
  if (!std::isfinite(*target)) reject(key, "a finite number", value);
}
void read_into(std::optional<bool>& target, const std::string& key, const Json& value) {
  target = read_bool(key, value);
}
void read_into(std::optional<std::size_t>& target, const std::string& key, const Json& value) {
  target = read_size(key, value, 1);
}
void read_into(std::vector<double>& target, const std::string& key, const Json& value) {
  target = read_positives(key, value);
}

// `rope_type` wins over the older `type`.
std::string type_of(const std::string& key, const Json& value) {
  for (const char* name : {"rope_type", "type"}) {
    if (value.contains(name) && !value[name].is_null()) {
      return read_text(concat(key, ".", name), value[name]);
    }
  }
  const bool scales = std::any_of(kFields.begin(), kFields.end(), [&](const Field& field) {
    return value.contains(field.name) && !value[field.name].is_null();
  });
  if (scales) reject(key + ".rope_type", kTypeNames, nullptr);
  return "default";
}

}  // namespace

RopeScaling read_rope_scaling(const std::string& key, const Json& value, Json* unknown) {
  if (!value.is_object()) reject(key, "an object or null", value);
  RopeScaling scaling;
  scaling.rope_type = type_of(key, value);
  for (const Field& field : kFields) {
    const auto found = value.find(field.name);
    if (found == value.end()) continue;
    const std::string path = concat(key, ".", field.name);
    if (!found->is_null()) {
      std::visit([&](auto member) { read_into(scaling.*member, path, *found); }, field.member);
    } else if (std::string_view(field.name) == "truncate") {
      scaling.truncate = false;  // HF reads an explicit null as false, and an absent key as true
    }
  }
  for (const auto& [name, other] : value.items()) {
    if (is_known(name)) continue;
    check(unknown != nullptr, quoted(key), ": found the unknown key ", quoted(name));
    (*unknown)[name] = other;
  }
  for (const std::string& problem : rope_scaling_problems(scaling)) {
    throw ValueError(concat(quoted(key), ": ", problem));
  }
  return scaling;
}

Json rope_scaling_to_json(const RopeScaling& scaling) {
  Json value = {{"rope_type", scaling.rope_type}};
  for (const Field& field : kFields) {
    if (!has(scaling, field.name)) continue;
    std::visit(
        [&](auto member) {
          if constexpr (requires { *(scaling.*member); }) {
            value[field.name] = *(scaling.*member);
          } else {
            value[field.name] = scaling.*member;
          }
        },
        field.member);
  }
  return value;
}

std::vector<std::string> rope_scaling_problems(const RopeScaling& scaling) {
  const auto type = std::find_if(kTypes.begin(), kTypes.end(),
                                 [&](const Type& t) { return scaling.rope_type == t.name; });
  if (type == kTypes.end()) {
    return {concat("expected rope_type ", kTypeNames, ", found ", quoted(scaling.rope_type))};
  }
  std::vector<std::string> problems;
  for (const char* name : type->required) {
    if (!has(scaling, name)) {
      problems.push_back(
          concat("rope_type ", quoted(scaling.rope_type), " needs ", name, ", found none"));
    }
  }
  const auto positive = [&](const char* name, const std::optional<double>& value,
                            bool zero_is_unset) {
    if (!value || (*value == 0 && zero_is_unset) || (std::isfinite(*value) && *value > 0)) return;
    problems.push_back(concat("expected ", name, " above 0, found ", *value));
  };
  positive("factor", scaling.factor, false);
  positive("attention_factor", scaling.attention_factor, false);
  positive("beta_fast", scaling.beta_fast, true);  // HF: 0 means the default
  positive("beta_slow", scaling.beta_slow, true);
  positive("low_freq_factor", scaling.low_freq_factor, false);
  if (scaling.rope_type == "llama3" && scaling.low_freq_factor && scaling.high_freq_factor &&
      !(*scaling.high_freq_factor > *scaling.low_freq_factor)) {
    problems.push_back(concat("expected high_freq_factor above low_freq_factor, found ",
                              *scaling.high_freq_factor, " and ", *scaling.low_freq_factor));
  }
  return problems;
}

}  // namespace infinilm
