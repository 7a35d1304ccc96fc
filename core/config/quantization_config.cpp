#include "config/quantization_config.hpp"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "config/json_values.hpp"
#include "infinilm/error.hpp"
#include "io/json.hpp"

namespace infinilm {
namespace {

using Layout = QuantizationScheme::Layout;

constexpr const char* kWayOut =
    " (or take the unquantised checkpoint and have it rounded to int4 or int8 while it is loaded)";

// The members of an object, by names that say where it stands.
class Fields {
 public:
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) reject(path_, "an object", object_);
  }

  std::string name(const std::string& key) const { return path_ + "." + key; }
  bool has(const std::string& key) const { return !at(key).is_null(); }
  const Json& at(const std::string& key) const {
    static const Json null;
    const auto found = object_.find(key);
    return found == object_.end() ? null : *found;
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const {
    reject(name(key), expected + kWayOut, at(key));
  }
  bool flag(const std::string& key, bool otherwise) const {
    return has(key) ? read_bool(name(key), at(key)) : otherwise;
  }
  std::string text(const std::string& key, const std::string& otherwise) const {
    return has(key) ? read_text(name(key), at(key)) : otherwise;
  }
  // Of a text that is no choice.
  void require(const std::string& key, std::initializer_list<const char*> choices) const {
    if (!has(key)) return;
    const std::string found = text(key, "");
    if (std::find(choices.begin(), choices.end(), found) != choices.end()) return;
    std::string expected;
    for (const char* choice : choices)
      expected += (expected.empty() ? "" : " or ") + quoted(std::string_view(choice));
    refuse(key, expected);
  }
  // What would change the numbers, and is not supported, unless it says nothing.
  void require_none(const std::string& key) const {
    const Json& value = at(key);
    const bool nothing =
        value.is_null() || value == false || (value.is_structured() && value.empty());
    if (!nothing) refuse(key, "none (it is not supported)");
  }
  int bits(const std::string& key, bool eight) const {
    const Json& value = at(key);
    if (value == 4) return 4;
    if (eight && value == 8) return 8;
    refuse(key, eight ? "4 or 8" : "4");
  }
  // 0 for HF's -1.
  std::int64_t group(const std::string& key) const {
    const Json& value = at(key);
    if (value == -1) return 0;
    constexpr std::int64_t kLargest = std::int64_t{1} << 30;
    const bool ok = value.is_number_integer() && value > 0 && value <= kLargest &&
                    value.get<std::int64_t>() % 32 == 0;
    if (!ok) refuse(key, "-1 or a multiple of 32");
    return value.get<std::int64_t>();
  }
  std::vector<std::string> texts(const std::string& key) const {
    std::vector<std::string> list;
    if (!has(key)) return list;
    if (!at(key).is_array()) reject(name(key), "a list of names", at(key));
    for (const Json& entry : at(key)) list.push_back(read_text(name(key), entry));
    return list;
  }

 private:
  const Json& object_;
  std::string path_;
};

void add_parts(std::vector<ModulePattern>& to, const std::vector<std::string>& names) {
  for (const std::string& name : names) to.push_back(ModulePattern::parts(name));
}

// The lists of a list.
std::vector<ModulePattern> blocks_of(const Fields& f, const std::string& key) {
  std::vector<ModulePattern> patterns;
  if (!f.has(key)) return patterns;
  if (!f.at(key).is_array()) reject(f.name(key), "a list of lists of names", f.at(key));
  for (const Json& entry : f.at(key)) {
    const Json names = entry.is_array() ? entry : Json::array({entry});
    for (const Json& name : names)
      patterns.push_back(ModulePattern::parts(read_text(f.name(key), name)));
  }
  return patterns;
}

QuantizationScheme read_gptq(const Fields& f) {
  QuantizationScheme s;
  s.layout = Layout::Gptq;
  s.bits = f.bits("bits", true);
  s.group = f.group("group_size");
  if (f.flag("is_marlin_format", false)) f.refuse("is_marlin_format", "false");
  const char* format = f.has("checkpoint_format") ? "checkpoint_format" : "format";
  f.require(format, {"gptq", "gptq_v2"});
  f.require("pack_dtype", {"int32"});
  f.require_none("dynamic");
  s.zeros_less_one = f.text(format, "gptq") == "gptq";
  s.zeros = !f.flag("sym", true);
  s.ordered = f.flag("desc_act", false);
  s.only = blocks_of(f, "modules_in_block_to_quantize");
  add_parts(s.except, f.texts("modules_to_not_convert"));
  if (f.flag("lm_head", false)) {
    if (!s.only.empty()) s.only.push_back(ModulePattern::parts("lm_head"));
  } else {
    s.except.push_back(ModulePattern::parts("lm_head"));
  }
  return s;
}

QuantizationScheme read_awq(const Fields& f) {
  QuantizationScheme s;
  s.layout = Layout::Awq;
  s.bits = f.bits(f.has("w_bit") ? "w_bit" : "bits", false);
  s.group = f.group(f.has("q_group_size") ? "q_group_size" : "group_size");
  const char* version = f.has("version") ? "version" : "format";
  f.require(version, {"gemm", "GEMM"});
  f.require("backend", {"autoawq", "auto", "gptqmodel"});
  s.zeros = f.flag("zero_point", true);
  if (!s.zeros) f.refuse("zero_point", "true");
  add_parts(s.except, f.texts("modules_to_not_convert"));
  s.except.push_back(ModulePattern::parts("lm_head"));
  return s;
}

// Activations that are rounded as they come only make a product coarser: here they count exactly.
void check_activations(const Fields& group) {
  group.require_none("output_activations");
  if (!group.has("input_activations")) return;
  const Fields input(group.at("input_activations"), group.name("input_activations"));
  if (input.at("dynamic") != true) {
    input.refuse("dynamic", "true (activations with fixed scales are not supported)");
  }
}

bool order_of(const Fields& weights) {
  const Json& order = weights.at("actorder");
  if (order.is_null() || order == false || order == "weight" || order == "static") return false;
  if (order == true || order == "group" || order == "dynamic") return true;
  weights.refuse("actorder", "null, \"weight\" or \"group\"");
}

// Layout, bits, group and zeros of one of the config groups.
QuantizationScheme read_weights(const Fields& group, Layout layout) {
  const Fields w(group.at("weights"), group.name("weights"));
  w.require("type", {"int"});
  if (w.flag("dynamic", false)) w.refuse("dynamic", "false");
  w.require("strategy", {"group", "channel"});
  w.require_none("block_structure");
  QuantizationScheme s;
  s.layout = layout;
  s.bits = w.bits("num_bits", true);
  if (layout == Layout::IntQuantized && s.bits != 8)
    w.refuse("num_bits", "8 beside the format int-quantized");
  if (!w.has("strategy") && !w.has("group_size")) w.refuse("strategy", "\"group\" or \"channel\"");
  if (w.text("strategy", "group") == "group") s.group = w.group("group_size");
  s.zeros = !w.flag("symmetric", true);
  s.ordered = order_of(w);
  return s;
}

Layout layout_of(const Fields& f) {
  f.require("format", {"pack-quantized", "int-quantized", "naive-quantized"});
  if (!f.has("format")) f.refuse("format", "\"pack-quantized\" or \"int-quantized\"");
  return f.text("format", "") == "pack-quantized" ? Layout::PackQuantized : Layout::IntQuantized;
}

void check_sparsity(const Fields& f) {
  if (!f.has("sparsity_config")) return;
  const Fields sparsity(f.at("sparsity_config"), f.name("sparsity_config"));
  sparsity.require("format", {"dense"});
}

QuantizationScheme read_group(const Fields& group, Layout layout, const std::string& format) {
  if (group.has("format") && layout_of(group) != layout)
    group.refuse("format", "the same as " + format);
  check_activations(group);
  QuantizationScheme scheme = read_weights(group, layout);
  for (const std::string& target : group.texts("targets"))
    scheme.only.push_back(ModulePattern::whole(group.name("targets"), target));
  if (scheme.only.empty()) group.refuse("targets", "at least one name");
  return scheme;
}

std::vector<QuantizationScheme> read_compressed(const Fields& f) {
  f.require("quantization_status", {"compressed"});
  f.require_none("kv_cache_scheme");
  f.require_none("transform_config");
  check_sparsity(f);
  const Layout layout = layout_of(f);
  const Fields groups(f.at("config_groups"), f.name("config_groups"));
  if (f.at("config_groups").empty()) f.refuse("config_groups", "at least one group");
  std::vector<ModulePattern> except;
  for (const std::string& name : f.texts("ignore"))
    except.push_back(ModulePattern::whole(f.name("ignore"), name));
  std::vector<QuantizationScheme> schemes;
  for (const auto& [key, value] : f.at("config_groups").items()) {
    schemes.push_back(read_group(Fields(value, groups.name(key)), layout, f.name("format")));
    schemes.back().except = except;
  }
  return schemes;
}

}  // namespace

std::vector<QuantizationScheme> read_quantization_schemes(const std::string& json) {
  const Json document = parse_json(json, "quantization_config", kConfigLimits);
  if (document.is_null()) return {};
  const Fields f(document, "quantization_config");
  const std::string method = f.text("quant_method", "");
  if (method == "gptq") return {read_gptq(f)};
  if (method == "awq") return {read_awq(f)};
  if (method == "compressed-tensors") return read_compressed(f);
  f.refuse("quant_method", "\"compressed-tensors\", \"gptq\" or \"awq\"");
}

}  // namespace infinilm
