// What was packed, taken apart again, and rows of it.
#include <cstring>

#include "cuda/tests/weights.hpp"

using namespace cuda_tests;

namespace {

// Values, codes, scales and zeros as the CPU gives them.
void check_unpacking(const RandomRows& rows) {
  const QuantizedRows* part = &rows;
  const auto packed = device().pack_quantized({&part, 1}, kBf16, false, nullptr);
  const std::int64_t outputs[] = {rows.outputs()};
  CHECK(packed->nbytes() == device().packed_bytes(outputs, rows.inputs(), kF32, rows.format()) +
                                rows.input_order().size() * sizeof(std::int32_t));
  const Tensor wide = device().unpack(*packed, 0);
  const Floats expected = meaning(rows);
  CHECK(std::memcmp(wide.data(), expected.data(), expected.size() * 4) == 0);
  const QuantizedMatrix found = device().unpack_quantized(*packed, 0);
  const auto same = host().pack_quantized({&part, 1}, kBf16, false, nullptr);
  const QuantizedMatrix kept = host().unpack_quantized(*same, 0);
  CHECK(std::memcmp(found.codes.data(), kept.codes.data(), kept.codes.nbytes()) == 0);
  CHECK(std::memcmp(found.scales.data(), kept.scales.data(), kept.scales.nbytes()) == 0);
  CHECK(std::memcmp(found.zeros.data(), kept.zeros.data(), kept.zeros.nbytes()) == 0);
  CHECK(std::ranges::equal(packed->input_order(), rows.input_order()));
  CHECK(found.input_order == kept.input_order);
}

}  // namespace

TEST(unpacking) {
  const Floats values = numbers(19 * 37, 1);
  for (const DataType dtype : {kF32, kBf16, kF16}) {
    const Tensor source = stored(values, dtype, 37);
    std::size_t seen = 0;
    const auto packed = device().pack({&source, 1}, kF32,
                                      [&](std::size_t part, std::size_t begin, std::size_t end) {
                                        CHECK(part == 0 && begin == seen);
                                        seen = end;
                                      });
    CHECK(seen == source.nbytes());
    CHECK(packed->nbytes() == device().packed_bytes(std::vector<std::int64_t>{19}, 37, dtype, {}));
    const Tensor back = device().unpack(*packed, 0);
    CHECK(back.dtype() == dtype && back.shape() == source.shape());
    CHECK(std::memcmp(back.data(), source.data(), source.nbytes()) == 0);
  }
  for (const QuantFormat& f : kOrderedFormats) {
    for (const Order& order : {Order{}, shuffled(301)}) {
      check_unpacking(RandomRows(37, 301, f, 5, order));
    }
  }
  const Tensor plain = stored(values, kF32, 37);
  const auto packed = device().pack({&plain, 1}, kF32, nullptr);
  CHECK_THROWS(ValueError, "quantised", device().unpack_quantized(*packed, 0));
}

TEST(embedding) {
  const std::vector<std::int64_t> ids = {3, 0, 18, 3};
  for (const DataType dtype : {kF32, kBf16, kF16}) {
    const Pair table = pack(dtype, kF32, {19}, 37);
    CHECK(agree(nothing(4 * 37), 37, 2, 0.0f, "embed", [&](Ops& ops, Matrix y) {
      ops.embed(ids, &ops == &device() ? *table.device : *table.host, y);
      ops.synchronize();
    }));
  }
  for (const QuantFormat& f : {QuantFormat{8, 32, true}, QuantFormat{4, 128, false}}) {
    for (const Order& order : {Order{}, shuffled(301)}) {
      const Pair table = pack(f, kF32, {19}, 301, order);
      CHECK(agree(nothing(4 * 301), 301, 0, 0.0f, "embed, quantised", [&](Ops& ops, Matrix y) {
        ops.embed(ids, &ops == &device() ? *table.device : *table.host, y);
        ops.synchronize();
      }));
    }
  }
}
