#include "model/save.hpp"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "config/quantization_config.hpp"
#include "infinilm/error.hpp"
#include "io/files.hpp"
#include "io/safetensors.hpp"
#include "model/parameters.hpp"
#include "quant/export.hpp"

namespace infinilm {
namespace {

std::string module_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

// Modules of a kind share a config group.
struct Kind {
  explicit Kind(const Weight& weight)
      : bits(weight.quant().bits),
        group(group_size(weight.quant(), weight.inputs())),
        zeros(weight.quant().zeros),
        ordered(!weight.input_order().empty()) {}

  int bits;
  std::int64_t group;
  bool zeros, ordered;

  friend auto operator<=>(const Kind&, const Kind&) = default;
};

// What goes into the files, known before anything is written.
class Plan {
 public:
  Plan(const LlamaConfig& config, const LlamaWeights& weights) {
    for_each_parameter(config, weights, [&](const std::string& name, const ParameterPlace& place) {
      add(name, place);
    });
    // A tied head is a linear layer to others, though nothing is stored for it.
    if (!weights.head) ignored_.push_back(module_of(kLmHead));
  }

  const std::vector<TensorEntry>& entries() const noexcept { return entries_; }
  std::string config_json(const LlamaConfig& config) const {
    return with_packed_groups(config.to_hf_json(), groups(), ignored_);
  }

 private:
  void add(const std::string& name, const ParameterPlace& place) {
    if (place.stored) {
      entries_.push_back({name, place.stored->dtype(), place.stored->shape()});
      return;
    }
    const Weight& w = *place.weight;
    const std::int64_t outputs = w.outputs(place.part);
    if (!w.quant()) {
      entries_.push_back({name, w.dtype(), {outputs, w.inputs()}});
      if (name != kEmbedTokens) ignored_.push_back(module_of(name));
      return;
    }
    const Kind kind(w);
    kinds_[kind].push_back(module_of(name));
    for (TensorEntry& entry :
         exported_tensors(module_of(name), outputs, w.inputs(), w.quant(), kind.ordered))
      entries_.push_back(std::move(entry));
  }

  // The kind of most modules is said of the class of linear layers, the others by name: names go before classes.
  std::vector<PackedGroup> groups() const {
    std::vector<PackedGroup> list;
    const auto most =
        std::ranges::max_element(kinds_, {}, [](const auto& entry) { return entry.second.size(); });
    const std::string embedding = module_of(kEmbedTokens);
    for (auto k = kinds_.begin(); k != kinds_.end(); ++k) {
      const auto& [kind, modules] = *k;
      PackedGroup group{kind.bits, kind.group, kind.zeros, kind.ordered, modules};
      if (k == most) {
        group.targets = {kLinear};
        if (std::ranges::count(modules, embedding) != 0) group.targets.push_back(embedding);
      }
      list.push_back(std::move(group));
    }
    return list;
  }

  std::vector<TensorEntry> entries_;
  std::map<Kind, std::vector<std::string>> kinds_;
  std::vector<std::string> ignored_;
};

void write_parameter(SafetensorsWriter& file, const std::string& name, const ParameterPlace& place,
                     Ops& ops) {
  if (place.stored) {
    file.write(name, place.stored->contiguous());
  } else if (!place.weight->quant()) {
    file.write(name, ops.unpack(*place.weight, place.part));
  } else {
    export_module(file, module_of(name), ops.unpack_quantized(*place.weight, place.part));
  }
}

}  // namespace

void save_model(const LlamaConfig& config, const LlamaWeights& weights, Ops& ops,
                const std::string& directory, const ProgressCallback& progress) {
  const Plan plan(config, weights);
  const std::string text = plan.config_json(config);
  make_directories(directory);
  const std::string config_path = join_path(directory, "config.json");
  check<OsError>(!is_directory(config_path), "expected a file, found a directory: ", config_path);
  AtomicFile config_file(config_path);
  config_file.write(text.data(), text.size());
  config_file.sync();
  SafetensorsWriter file(join_path(directory, "model.safetensors"), plan.entries(),
                         {{"format", "pt"}});  // without which Transformers refuses it
  for_each_parameter(config, weights, [&](const std::string& name, const ParameterPlace& place) {
    write_parameter(file, name, place, ops);
    if (progress) progress(file.written(), file.nbytes());
  });
  // Both are complete on the disk: what is left is to give them their names.
  file.commit();
  config_file.commit();
}

Quantization common_quantization(const LlamaWeights& weights) {
  std::vector<Kind> kinds;
  for (const LayerWeights& w : weights.layers) {
    for (const Linear* l : {&w.qkv, &w.o, &w.gate_up, &w.down}) kinds.emplace_back(*l->weight);
  }
  Quantization common;
  const auto differs = [&](const Kind& k) {
    return k.bits != kinds.front().bits || k.group != kinds.front().group;
  };
  if (kinds.empty() || std::ranges::any_of(kinds, differs)) return common;
  common.bits = kinds.front().bits;
  common.group_size = static_cast<std::size_t>(kinds.front().group);
  return common;
}

}  // namespace infinilm
