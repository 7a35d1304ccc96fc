// What to say where a device's memory does not suffice: what is needed, and what would fit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "infinilm/config.hpp"
#include "infinilm/quantization.hpp"
#include "model/imported.hpp"
#include "model/kv_cache.hpp"
#include "model/parameters.hpp"
#include "ops/ops.hpp"

namespace infinilm {

// Of weights that were to be loaded. `room`: before that; none if nobody knows.
std::string weights_advice(const LlamaConfig& config, const Quantization& quantization,
                           const StateDict& state, const ImportedModules& imported,
                           const std::string& source, const Ops& ops,
                           const std::optional<Room>& room);

// What a step was asked for.
struct StepSize {
  std::vector<std::size_t> past;  // tokens that each sequence has in the cache
  std::int64_t rows = 0;          // new tokens of all sequences together
  std::int64_t logit_rows = 0;
  KvLayout kv;
};

// Of a step that has failed and let go of what it had; `room`: since then.
std::string step_advice(const LlamaConfig& config, const StepSize& step, const Ops& ops,
                        const std::optional<Room>& room);

}  // namespace infinilm
