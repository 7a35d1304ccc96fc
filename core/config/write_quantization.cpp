// The `quantization_config` of what is saved quantised: compressed-tensors, "pack-quantized".
#include "config/quantization_config.hpp"
#include "infinilm/error.hpp"
#include "io/json.hpp"

namespace infinilm {
namespace {

Json json_of(const PackedGroup& g) {
  Json weights = {{"num_bits", g.bits},   {"type", "int"},         {"symmetric", !g.zeros},
                  {"dynamic", false},     {"actorder", nullptr},   {"block_structure", nullptr},
                  {"observer", "minmax"}, {"strategy", "channel"}, {"group_size", nullptr}};
  if (g.group != 0) weights.update({{"strategy", "group"}, {"group_size", g.group}});
  if (g.ordered) weights["actorder"] = "group";
  return {{"weights", std::move(weights)},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"targets", g.targets}};
}

}  // namespace

std::string with_packed_groups(const std::string& config_json,
                               const std::vector<PackedGroup>& groups,
                               const std::vector<std::string>& ignore) {
  Json document = parse_json(config_json, "config", kWrittenConfigLimits);
  document.erase("quantization_config");
  if (groups.empty()) return dump_json(document, true);
  Json config_groups = Json::object();
  for (std::size_t i = 0; i < groups.size(); ++i)
    config_groups[concat("group_", i)] = json_of(groups[i]);
  document["quantization_config"] = {
      {"quant_method", "compressed-tensors"}, {"format", "pack-quantized"},
      {"quantization_status", "compressed"},  {"config_groups", std::move(config_groups)},
      {"kv_cache_scheme", nullptr},           {"ignore", ignore}};
  return dump_json(document, true);
}

}  // namespace infinilm
