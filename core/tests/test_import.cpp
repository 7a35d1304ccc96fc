// Rows of a quantised checkpoint, read by several threads at once and from several matrices in turn; the values are
// tested in bindings/tests/test_quantized_checkpoints.py.
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "quant/import.hpp"
#include "tests/check.hpp"

namespace {

using infinilm::DataType;
using infinilm::QuantizationScheme;
using infinilm::QuantizedRows;
using infinilm::Shape;
using infinilm::Tensor;

constexpr std::int64_t kOutputs = 104, kInputs = 96;
constexpr const char* kModule = "model.layers.0.mlp.up_proj";

// Words that differ from one another; 1 wherever they are scales.
Tensor numbered(const Shape& shape, DataType dtype, std::uint32_t seed) {
  Tensor t = Tensor::empty(shape, dtype);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    const std::uint32_t word = static_cast<std::uint32_t>(i + 1) * 2654435761u + seed;
    const std::uint16_t one = 0x3c00;
    if (dtype == DataType::I32) std::memcpy(t.data() + 4 * i, &word, sizeof word);
    if (dtype == DataType::F16) std::memcpy(t.data() + 2 * i, &one, sizeof one);
  }
  return t;
}

std::unique_ptr<QuantizedRows> matrix(QuantizationScheme::Layout layout, std::uint32_t seed) {
  QuantizationScheme scheme;
  scheme.layout = layout;
  scheme.group = 32;
  scheme.zeros = true;
  std::map<std::string, Tensor> state;
  for (const auto& t : quantized_tensors(scheme, kModule, kOutputs, kInputs)) {
    const DataType dtype = t.dtypes.size() > 1 && t.required ? DataType::F16 : t.dtypes.front();
    if (t.required) state.emplace(t.name, numbered(t.shape, dtype, seed));
  }
  return open_quantized(scheme, state, kModule, kOutputs, kInputs);
}

std::vector<std::uint8_t> row_of(const QuantizedRows& rows, std::int64_t row) {
  std::vector<std::uint8_t> codes(kInputs), zeros(3);
  std::vector<float> scales(3);
  rows.read(row, codes, scales, zeros);
  codes.insert(codes.end(), zeros.begin(), zeros.end());
  return codes;
}

std::vector<std::vector<std::uint8_t>> all_of(const QuantizedRows& rows) {
  std::vector<std::vector<std::uint8_t>> all;
  for (std::int64_t row = 0; row < rows.outputs(); ++row) all.push_back(row_of(rows, row));
  return all;
}

constexpr QuantizationScheme::Layout kLayouts[] = {QuantizationScheme::Layout::PackQuantized,
                                                   QuantizationScheme::Layout::Gptq,
                                                   QuantizationScheme::Layout::Awq};

}  // namespace

TEST(threads_read_the_same_rows) {
  for (const auto layout : kLayouts) {
    const auto rows = matrix(layout, 1);
    const auto expected = all_of(*rows);
    std::vector<int> same(4);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < same.size(); ++t) {
      threads.emplace_back([&, t] {
        for (std::int64_t i = 0; i < kOutputs; ++i) {
          const std::int64_t row = (i * 37 + static_cast<std::int64_t>(t)) % kOutputs;
          same[t] += row_of(*rows, row) == expected[static_cast<std::size_t>(row)];
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int count : same) CHECK(count == kOutputs);
  }
}

TEST(matrices_in_turn_are_told_apart) {
  for (const auto layout : kLayouts) {
    auto first = matrix(layout, 1);
    const auto second = matrix(layout, 77);
    const auto of_first = all_of(*first), of_second = all_of(*second);
    CHECK(of_first != of_second);
    for (std::size_t row = 0; row < of_first.size(); ++row) {
      CHECK(row_of(*first, static_cast<std::int64_t>(row)) == of_first[row]);
      CHECK(row_of(*second, static_cast<std::int64_t>(row)) == of_second[row]);
    }
    first = nullptr;
    first = matrix(layout, 78);  // perhaps in the same place
    CHECK(row_of(*first, 0) != of_first[0]);
  }
}
