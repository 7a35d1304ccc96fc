// Typed values out of JSON. Each throws ValueError: `"hidden_size": expected …, found …`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "infinilm/config.hpp"
#include "io/json.hpp"

namespace infinilm {

[[noreturn]] void reject(const std::string& key, const std::string& expected, const Json& found);

std::size_t read_size(const std::string& key, const Json& value, std::size_t lowest = 0);
bool read_bool(const std::string& key, const Json& value);
std::string read_text(const std::string& key, const Json& value);
std::int64_t read_id(const std::string& key, const Json& value);
TokenIds read_ids(const std::string& key, const Json& value);  // one, a list, or null for none

// Also HF's {"__float__": "NaN"} for what JSON has no number for.
double read_number(const std::string& key, const Json& value);
double read_number_in(const std::string& key, const Json& value, double lowest, double highest);
double read_positive(const std::string& key, const Json& value);
std::vector<double> read_positives(const std::string& key, const Json& value);
// The inverse of `read_number`.
Json number_to_json(double value);

}  // namespace infinilm
