#include "config/json_values.hpp"

#include <cmath>
#include <limits>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

constexpr const char* kFloatTag = "__float__";

}  // namespace

void reject(const std::string& key, const std::string& expected, const Json& found) {
  throw ValueError(concat(quoted(key), ": expected ", expected, ", found ", describe(found)));
}

std::size_t read_size(const std::string& key, const Json& value, std::size_t lowest) {
  const bool ok = value.is_number_unsigned() && value.get<std::uint64_t>() >= lowest &&
                  value.get<std::uint64_t>() <= std::numeric_limits<std::size_t>::max();
  if (!ok) reject(key, concat("an integer of ", lowest, " or more"), value);
  return value.get<std::size_t>();
}

bool read_bool(const std::string& key, const Json& value) {
  if (!value.is_boolean()) reject(key, "true or false", value);
  return value.get<bool>();
}

std::string read_text(const std::string& key, const Json& value) {
  if (!value.is_string()) reject(key, "a string", value);
  return value.get<std::string>();
}

std::int64_t read_id(const std::string& key, const Json& value) {
  const bool ok = value.is_number_integer() &&
                  (!value.is_number_unsigned() ||
                   value.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max());
  if (!ok) reject(key, "an integer of 64 bits", value);
  return value.get<std::int64_t>();
}

TokenIds read_ids(const std::string& key, const Json& value) {
  if (value.is_null()) return {};
  if (!value.is_array()) return {read_id(key, value)};
  TokenIds ids;
  for (const Json& id : value) ids.push_back(read_id(key, id));
  return ids;
}

double read_number(const std::string& key, const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value.is_object() && value.size() == 1 && value.contains(kFloatTag)) {
    const Json& tag = value[kFloatTag];
    if (tag == "NaN") return std::numeric_limits<double>::quiet_NaN();
    if (tag == "Infinity") return std::numeric_limits<double>::infinity();
    if (tag == "-Infinity") return -std::numeric_limits<double>::infinity();
  }
  reject(key, "a number", value);
}

double read_number_in(const std::string& key, const Json& value, double lowest, double highest) {
  const double number = read_number(key, value);
  if (!(number >= lowest && number <= highest)) {
    reject(key, concat("a number from ", lowest, " to ", highest), value);
  }
  return number;
}

double read_positive(const std::string& key, const Json& value) {
  const double number = read_number(key, value);
  if (!std::isfinite(number) || number <= 0) reject(key, "a finite number above 0", value);
  return number;
}

std::vector<double> read_positives(const std::string& key, const Json& value) {
  if (!value.is_array()) reject(key, "a list of numbers", value);
  std::vector<double> numbers;
  for (const Json& number : value) numbers.push_back(read_positive(key, number));
  return numbers;
}

Json number_to_json(double value) {
  if (std::isnan(value)) return {{kFloatTag, "NaN"}};
  if (std::isinf(value)) return {{kFloatTag, value > 0 ? "Infinity" : "-Infinity"}};
  return value;
}

}  // namespace infinilm
