#include "model/rotary.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// base^(2i/D) for i = 0 … D/2 - 1, in float32 as torch computes it.
std::vector<float> powers(double base, std::int64_t half) {
  std::vector<float> p(static_cast<std::size_t>(half));
  for (std::size_t i = 0; i < p.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(2 * half);
    p[i] = static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  }
  return p;
}

std::vector<float> inverse(std::vector<float> p) {
  for (float& x : p) x = 1.0f / x;
  return p;
}

// Llama 3.1's: low frequencies divided by `factor`, high ones kept, those between interpolated.
std::vector<float> llama3(const RopeScaling& s, double theta, std::int64_t half,
                          std::int64_t original) {
  const float factor = static_cast<float>(s.factor.value());
  const float low = static_cast<float>(s.low_freq_factor.value());
  const float high = static_cast<float>(s.high_freq_factor.value());
  const float context = static_cast<float>(original);
  std::vector<float> f = inverse(powers(theta, half));
  for (float& x : f) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / x;
    if (wavelength > context / low) {
      x /= factor;
    } else if (wavelength >= context / high) {
      const float smooth = (context / wavelength - low) / (high - low);
      x = (1 - smooth) * x / factor + smooth * x;
    }
  }
  return f;
}

// Where a frequency turns `rotations` times within the original context (YaRN, Peng et al. 2023, section 3.2).
double correction_dim(double rotations, double dim, double theta, double original) {
  return dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

std::vector<float> yarn(const RopeScaling& s, double theta, double factor, std::int64_t half,
                        std::int64_t original) {
  const double dim = static_cast<double>(2 * half);
  const auto context = static_cast<double>(original);
  const auto beta = [](const std::optional<double>& b, double otherwise) {
    return b && *b != 0 ? *b : otherwise;
  };
  double low = correction_dim(beta(s.beta_fast, 32), dim, theta, context);
  double high = correction_dim(beta(s.beta_slow, 1), dim, theta, context);
  if (s.truncate.value_or(true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  std::vector<float> p = powers(theta, half);
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double linear = (static_cast<double>(i) - low) / (high - low);
    const float ramp = static_cast<float>(std::clamp(linear, 0.0, 1.0));
    const float extrapolated = 1.0f / p[i];
    const float interpolated = 1.0f / (static_cast<float>(factor) * p[i]);
    p[i] = interpolated * ramp + extrapolated * (1 - ramp);
  }
  return p;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeScaling& s, double factor) {
  if (s.attention_factor) return *s.attention_factor;
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0) {
    return yarn_mscale(factor, *s.mscale) / yarn_mscale(factor, *s.mscale_all_dim);
  }
  return yarn_mscale(factor, 1);
}

// LongRoPE (Ding et al. 2024): every frequency has its own divisor.
std::vector<float> longrope(const std::vector<double>& factors, double theta, std::int64_t half) {
  std::vector<float> p = powers(theta, half);
  check(factors.size() == p.size(), "rope_scaling: expected ", p.size(),
        " entries (head_dim / 2) in short_factor and long_factor, found ", factors.size());
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = 1.0f / (static_cast<float>(factors[i]) * p[i]);
  return p;
}

double longrope_attention_factor(const RopeScaling& s, double factor, std::int64_t original) {
  if (s.attention_factor) return *s.attention_factor;
  return factor <= 1 ? 1.0
                     : std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
}

}  // namespace

RotaryEmbedding::RotaryEmbedding(const LlamaConfig& config)
    : scaling_(config.rope_scaling.value_or(RopeScaling{})),
      half_(static_cast<std::int64_t>(config.head_dim() / 2)),
      theta_(config.rope_theta),
      original_length_(static_cast<std::int64_t>(config.max_position_embeddings)) {
  const std::string& type = scaling_.rope_type;
  const double longest = static_cast<double>(config.max_position_embeddings);
  if (type != "dynamic" && scaling_.original_max_position_embeddings) {
    original_length_ = static_cast<std::int64_t>(*scaling_.original_max_position_embeddings);
  }
  const double factor = scaling_.factor.value_or(longest / static_cast<double>(original_length_));
  std::vector<float> fixed, longer;
  if (type == "default") {
    fixed = inverse(powers(theta_, half_));
  } else if (type == "linear") {
    fixed = inverse(powers(theta_, half_));
    for (float& x : fixed) x /= static_cast<float>(factor);
  } else if (type == "llama3") {
    fixed = llama3(scaling_, theta_, half_, original_length_);
  } else if (type == "yarn") {
    fixed = yarn(scaling_, theta_, factor, half_, original_length_);
    attention_factor_ = yarn_attention_factor(scaling_, factor);
  } else if (type == "longrope") {
    fixed = longrope(scaling_.short_factor, theta_, half_);
    longer = longrope(scaling_.long_factor, theta_, half_);
    attention_factor_ = longrope_attention_factor(scaling_, factor, original_length_);
  } else {
    check(type == "dynamic", "rope_scaling: unsupported rope_type ", quoted(type));
  }
  const auto table = [&](std::vector<float>& frequencies) {
    const auto scale = static_cast<float>(attention_factor_);
    return frequencies.empty() ? nullptr
                               : std::make_unique<const AngleTable>(std::move(frequencies), scale);
  };
  fixed_ = table(fixed);
  long_ = table(longer);
}

const AngleTable* RotaryEmbedding::table_for(std::int64_t length) const {
  return long_ && length > original_length_ ? long_.get() : fixed_.get();
}

// Dynamic NTK: the base grows with the sequence. In float32, as HF's tensor arithmetic.
std::vector<float> RotaryEmbedding::dynamic_frequencies(std::int64_t length) const {
  const auto factor = static_cast<float>(scaling_.factor.value());
  const auto seen = static_cast<float>(std::max(length, original_length_));
  const float ratio = factor * seen / static_cast<float>(original_length_) - (factor - 1);
  const auto dim = static_cast<float>(2 * half_);
  const float base = static_cast<float>(theta_) * std::pow(ratio, dim / (dim - 2));
  return inverse(powers(base, half_));
}

RopeTables RotaryEmbedding::tables(Ops& ops, std::span<const SequenceRows> sequences,
                                   Matrix both) const {
  const auto halves_of = [&](float* memory) {
    return RopeTables{{memory, both.rows, half_, both.stride},
                      {memory + half_, both.rows, half_, both.stride}};
  };
  const RopeTables tables = halves_of(both.data);
  if (ops.device() == Device()) {
    fill(sequences, tables);
  } else {
    std::vector<float> host(static_cast<std::size_t>(both.rows * both.stride));
    fill(sequences, halves_of(host.data()));
    ops.upload_for_step(host.data(), both.data, host.size() * sizeof(float));
  }
  return tables;
}

void RotaryEmbedding::fill(std::span<const SequenceRows> sequences,
                           const RopeTables& tables) const {
  for (const SequenceRows& s : sequences) {
    const Matrix cos = tables.cos.slice(s.row_begin, s.rows);
    const Matrix sin = tables.sin.slice(s.row_begin, s.rows);
    if (const AngleTable* table = table_for(s.past + s.rows)) {
      table->copy(s.past, cos, sin);
      continue;
    }
    const std::vector<float> f = dynamic_frequencies(s.past + s.rows);
    for (std::int64_t r = 0; r < s.rows; ++r) {
      put_angles(f, s.past + r, static_cast<float>(attention_factor_), cos.row(r), sin.row(r));
    }
  }
}

}  // namespace infinilm
