// RoPE scalings in JSON, as HF's modeling_rope_utils.py reads and checks them.
#pragma once

#include <string>
#include <vector>

#include "infinilm/config.hpp"
#include "io/json.hpp"

namespace infinilm {

// `value`: an object with rope_type (or the older `type`) and what that type needs; null counts as absent. Keys that mean
// nothing are moved to `unknown`, or refused if that is null. Throws ValueError that begins with `key`.
RopeScaling read_rope_scaling(const std::string& key, const Json& value, Json* unknown);

Json rope_scaling_to_json(const RopeScaling& scaling);

// What keeps `scaling` from being used, one sentence each: an unknown type, a missing or impossible number.
std::vector<std::string> rope_scaling_problems(const RopeScaling& scaling);

}  // namespace infinilm
