// Products of few rows and many, by weights of every format, and what is fused with them.
#include <cmath>
#include <iostream>
#include <limits>

#include "cuda/tests/weights.hpp"
#if defined(INFINILM_CUDA_EMULATED)
#include "cuda/tests/emulation.hpp"
#endif

using namespace cuda_tests;

TEST(floats) {
  struct {
    DataType stored, compute;
  } types[] = {{kF32, kF32},  {kF16, kF32}, {kBf16, kF32}, {kBf16, kBf16},
               {kF32, kBf16}, {kF16, kF16}, {kF32, kF16}};
  for (const auto& t : types) {
    for (const std::int64_t rows : {1, 3, 16, 33, 70}) {
      check_products(t.stored, t.compute, rows, 37, 301,
                     text_of(t.stored, t.compute, rows, 37, 301));
    }
    if (is_quick()) continue;
    check_products(t.stored, t.compute, 1, 16, 2048, text_of(t.stored, t.compute, 1, 16, 2048));
    check_products(t.stored, t.compute, 2, 1, 1, text_of(t.stored, t.compute, 2, 1, 1));
    check_products(t.stored, t.compute, 5, 90, 256, text_of(t.stored, t.compute, 5, 90, 256));
  }
  // More columns than shared memory has room for.
  check_products(kBf16, kBf16, 16, 17, 14336, text_of(kBf16, kBf16, 16, 17, 14336));
  check_products(kF32, kF32, 4, 17, 14336, text_of(kF32, kF32, 4, 17, 14336));
}

TEST(quantised) {
  const QuantFormat formats[] = {{8, 32, false},  {8, 64, false}, {8, 128, true},
                                 {8, 96, true},   {4, 32, true},  {4, 32, false},
                                 {4, 128, false}, {4, 128, true}, {4, 64, false}};
  for (const QuantFormat& f : formats) {
    if (is_quick() && !f.zeros) continue;
    for (const DataType compute : {kF32, kBf16, kF16}) {
      for (const std::int64_t rows : {1, 16, 20}) {
        const std::string what =
            concat(f.bits, " bits, groups of ", f.group, f.zeros ? ", zeros" : "", ", in ",
                   name_of(compute), ", ", rows, " rows");
        check_products(f, compute, rows, 37, 301, what);
        if (rows == 20 && !is_quick()) {
          check_products(f, compute, 64, 16, 2048, what + ", 64 of them, 2048");
        }
        if (rows == 1) check_products(f, compute, rows, 16, 2048, what + ", 2048");
      }
    }
  }
}

// More columns than shared memory has room for, of as many units for some warps as for others, or one less.
TEST(quantised_in_chunks) {
  check_products(QuantFormat{4, 32, true}, kBf16, 16, 77, 8000, "4 bits, 16 rows of 8000");
  check_products(QuantFormat{8, 128, false}, kBf16, 13, 40, 7297, "8 bits, 13 rows of 7297");
}

// Blocks that take two and four tiles at a time, with a last group that is not whole.
TEST(groups_of_tiles) {
#if defined(INFINILM_CUDA_EMULATED)
  const std::vector<std::int64_t> outputs = {77, 171};  // for three multiprocessors
#else
  const std::vector<std::int64_t> outputs = {16 * 135 - 3, 16 * 397 - 5};  // for 132
#endif
  for (const std::int64_t n : outputs) {
    for (const std::int64_t rows : {1, 2, 11}) {
      const std::string what = concat(n, " outputs, ", rows, " rows");
      check_products(QuantFormat{8, 128, false}, kBf16, rows, n, 200, "8 bits, " + what);
      check_products(QuantFormat{4, 32, true}, kBf16, rows, n, 200, "4 bits, " + what);
      check_products(kBf16, kBf16, rows, n, 200, "16 bits, " + what);
      if (rows == 2) check_products(kF32, kF32, rows, n, 200, "32 bits, " + what);
    }
  }
}

// Several panels, which several blocks have parts of, blocks with several chunks, and a last panel that is not whole.
TEST(many_rows) {
#if defined(INFINILM_CUDA_EMULATED)
  constexpr std::int64_t n = 200, inputs = 1300;  // for three multiprocessors
  const std::vector<std::int64_t> row_counts = {40};
#else
  constexpr std::int64_t n = 5000, inputs = 3000;
  const std::vector<std::int64_t> row_counts = {17, 40, 130};
#endif
  for (const std::int64_t rows : row_counts) {
    const std::string what = concat(rows, " rows");
    check_products(QuantFormat{8, 128, false}, kBf16, rows, n, inputs, "8 bits, " + what);
    check_products(QuantFormat{4, 32, true}, kBf16, rows, n, inputs, "4 bits, " + what);
    check_products(kBf16, kBf16, rows, n, inputs, "16 bits, " + what);
  }
}

#if !defined(INFINILM_CUDA_EMULATED)
// Whatever comes first: what copies, multiplies and adds up runs side by side, and in another order each time.
TEST(same_bits_each_time) {
  constexpr std::int64_t n = 5000, inputs = 3000, kTimes = 2000;
  Ops& ops = device();
  const auto count_others = [&](const Pair& w, std::int64_t rows) {
    const Numbers x(ops, numbers(rows * inputs, 1), inputs), y(ops, nothing(rows * n), n);
    const Matrix out = y.matrix();
    Floats first;
    std::int64_t differ = 0;
    for (std::int64_t i = 0; i < kTimes; ++i) {
      ops.linear(x.matrix(), *w.device, {}, {&out, 1});
      const Floats found = y.read();
      if (i == 0) first = found;
      differ += found != first;
    }
    return differ;
  };
  for (const QuantFormat& f :
       {QuantFormat{8, 128, false}, QuantFormat{4, 32, true}, QuantFormat{4, 32, false}}) {
    const Pair w = pack(f, kBf16, {n}, inputs);
    for (const std::int64_t rows : {1, 8, 40}) CHECK(count_others(w, rows) == 0);
  }
}
#endif

TEST(ordered) {
  for (const QuantFormat& f : kOrderedFormats) {
    if (is_quick() && !f.zeros) continue;
    for (const DataType compute : {kF32, kBf16, kF16}) {
      for (const std::int64_t rows : {1, 2, 16, 20, 70}) {
        if (is_quick() && rows == 16) continue;
        const std::string what = concat(f.bits, " bits, groups of ", f.group, ", in ",
                                        name_of(compute), ", ", rows, " rows, in another order");
        check_products(Ordered{f}, compute, rows, 37, 301, what);
        if (rows <= 2) check_products(Ordered{f}, compute, rows, 16, 2048, what + ", 2048");
      }
    }
  }
  const QuantFormat& f = kOrderedFormats[0];
  const RandomRows one(16, 64, f, 1, shuffled(64, 1)), other(16, 64, f, 2, shuffled(64, 2));
  const std::vector<const QuantizedRows*> parts = {&one, &other};
  for (Ops* ops : {&device(), static_cast<Ops*>(&host())}) {
    CHECK_THROWS(ValueError, "one order", ops->pack_quantized(parts, kF32, false, nullptr));
  }
}

// What was put off before the columns are gathered is done, and whole.
TEST(ordered_after_others) {
  constexpr std::int64_t kInputs = 72, kInner = 40;
  for (const DataType compute : {kF32, kBf16}) {
    const Pair gate_up = pack(Ordered{{4, 32, true}}, compute, {kInner, kInner}, kInputs);
    const Pair down = pack(Ordered{{8, 32, false}}, compute, {kInputs}, kInner);
    for (const std::int64_t rows : {1, 2, 5, 40}) {
      const std::string what =
          concat("mlp in another order, ", name_of(compute), ", ", rows, " rows");
      // The CPU's weights here do not have x rounded.
      const float tolerance = compute == kF32 ? 3e-5f : 1e-2f;
      const Floats start = numbers(rows * kInputs, 1);
      CHECK(agree(start, kInputs, 0, tolerance, what, [&](Ops& ops, Matrix y) {
        const auto of = [&](const Pair& w) -> const Weight& {
          return &ops == &device() ? *w.device : *w.host;
        };
        const Numbers w(ops, numbers(kInputs, 2), kInputs),
            h(ops, nothing(rows * kInputs), kInputs), inner(ops, nothing(rows * kInner), kInner);
        ops.rms_norm(y, w.data(), 1e-6f, h.matrix());
        ops.last_use(h.matrix());
        ops.linear_act_mul(h.matrix(), of(gate_up), {}, HiddenAct::Silu, inner.matrix());
        ops.last_use(inner.matrix());
        ops.linear(inner.matrix(), of(down), {}, {&y, 1}, y);
        ops.synchronize();
      }));
    }
  }
}

// Of few rows by codes x is rounded for a unit of columns together: less than to bfloat16, also beside a column that is much larger.
TEST(codes_round_less_than_bfloat16) {
  constexpr std::int64_t kInputs = 256, kOutputs = 200;
  for (const float largest : {1.0f, 1000.0f}) {
    for (const QuantFormat& f : {QuantFormat{8, 32, true}, QuantFormat{8, 128, false},
                                 QuantFormat{4, 32, false}, QuantFormat{4, 128, true}}) {
      const Pair w = pack(f, kBf16, {kOutputs}, kInputs);
      for (const std::int64_t rows : {1, 4, 7, 16}) {
        Floats values = numbers(rows * kInputs, 1);
        for (std::int64_t r = 0; r < rows; ++r) {
          values[static_cast<std::size_t>(r * kInputs + 11)] *= largest;
        }
        const auto product = [&](Ops& ops, const Floats& x, const Weight& weight) {
          const Numbers in(ops, x, kInputs), y(ops, nothing(rows * kOutputs), kOutputs);
          const Matrix out = y.matrix();
          ops.linear(in.matrix(), weight, {}, {&out, 1});
          return y.read();
        };
        const Floats exact = product(host(), values, *w.host);
        const auto off = [&](const Floats& y) {
          double sum = 0;
          for (std::size_t i = 0; i < y.size(); ++i) sum += std::pow(double{y[i]} - exact[i], 2);
          return std::sqrt(sum);
        };
        const double found = off(product(device(), values, *w.device));
        const double rough = off(product(host(), rounded(values, kBf16), *w.host));
        if (found * 2 < rough) continue;
        std::cout << f.bits << " bits, groups of " << f.group << ", " << rows << " rows, largest "
                  << largest << ": off by " << found << ", bfloat16 by " << rough << "\n";
        CHECK(found * 2 < rough);
      }
    }
  }
}

// x of any size: each unit of columns has a power of two of its own. Infinities are not forgotten.
TEST(quantised_extremes) {
  constexpr std::int64_t kRows = 3, kInputs = 192, kOutputs = 24;
  for (const float size : {0.0f, 1e-44f, 1e-30f, 1e-5f, 3e4f, 1e30f}) {
    for (const QuantFormat& f : {QuantFormat{8, 32, true}, QuantFormat{4, 128, false}}) {
      const Pair w = pack(f, kBf16, {kOutputs}, kInputs);
      Floats values = rounded(numbers(kRows * kInputs, 1), kF16);
      for (std::size_t i = 0; i < values.size(); i += 2) values[i] *= size;
      for (const std::int64_t rows : {std::int64_t{1}, kRows}) {
        const Floats some(values.begin(), values.begin() + rows * kInputs);
        CHECK(agree(nothing(rows * kOutputs), kOutputs, 0, 1e-3f, concat("x times ", size),
                    [&](Ops& ops, Matrix y) {
                      const Numbers in(ops, some, kInputs);
                      ops.linear(in.matrix(), &ops == &device() ? *w.device : *w.host, {}, {&y, 1});
                      ops.synchronize();
                    }));
      }
    }
  }
}

TEST(quantised_infinities) {
  constexpr std::int64_t kInputs = 300, kOutputs = 24;
  for (const QuantFormat& f : {QuantFormat{8, 32, true}, QuantFormat{4, 128, false}}) {
    const Pair w = pack(f, kBf16, {kOutputs}, kInputs);
    for (const float what :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      for (const std::int64_t rows : {1, 2, 9}) {
        Floats values = numbers(rows * kInputs, 1);
        values[static_cast<std::size_t>((rows - 1) * kInputs + 130)] = what;  // of the last row
        const Numbers in(device(), values, kInputs),
            y(device(), nothing(rows * kOutputs), kOutputs);
        const Matrix out = y.matrix();
        device().linear(in.matrix(), *w.device, {}, {&out, 1});
        const Floats found = y.read();
        for (std::size_t i = 0; i < found.size(); ++i) {
          const bool is_last = i >= static_cast<std::size_t>((rows - 1) * kOutputs);
          CHECK(std::isfinite(found[i]) != is_last);
        }
      }
    }
  }
}

// So many tiles that blocks have several groups of them.
TEST(many_tiles) {
#if defined(INFINILM_CUDA_EMULATED)
  constexpr std::int64_t n = 700, of_row = 437;  // for three multiprocessors
#else
  constexpr std::int64_t n = 20000, of_row = 19037;
#endif
  check_products(kBf16, kBf16, 1, n, 72, text_of(kBf16, kBf16, 1, n, 72));
  check_products(kF32, kF32, 2, n, 40, text_of(kF32, kF32, 2, n, 40));
  check_products(QuantFormat{4, 32, true}, kBf16, 1, n, 72, "4 bits, many outputs");
  // So many columns that a row has sums of its own; in the last stage most warps have none.
  check_products(QuantFormat{4, 32, true}, kBf16, 1, of_row, 2100, "4 bits, many of a row");
  check_products(QuantFormat{8, 128, false}, kBf16, 1, of_row, 2100, "8 bits, many of a row");
}

// What is put off and fused leaves the same in memory as what is not.
TEST(put_off) {
  const std::int64_t n = 37;
  for (const auto& [inputs, rows] : {std::pair<std::int64_t, std::int64_t>{301, 1},
                                     {301, 2},
                                     {301, 5},
                                     {256, 1},
                                     {1200, 2},
                                     {2100, 1},
                                     {256, 5}}) {
    const auto compare = [&, inputs = inputs, rows = rows](const Pair& weight, float tolerance) {
      const Numbers x(device(), numbers(rows * inputs, 1), inputs),
          w(device(), numbers(inputs, 2), inputs);
      const Numbers h(device(), nothing(rows * inputs), inputs), y(device(), nothing(rows * n), n);
      const Numbers h2(device(), nothing(rows * inputs), inputs),
          y2(device(), nothing(rows * n), n);
      const Matrix out = y.matrix(), out2 = y2.matrix();
      device().rms_norm(x.matrix(), w.data(), 1e-6f, h.matrix());
      device().linear(h.matrix(), *weight.device, {}, {&out, 1});
      device().rms_norm(x.matrix(), w.data(), 1e-6f, h2.matrix());
      device().submit();
      device().linear(h2.matrix(), *weight.device, {}, {&out2, 1});
      CHECK(is_close(h.read(), h2.read(), 1e-6f, "the norm"));
      CHECK(is_close(y.read(), y2.read(), tolerance, "the product"));
    };
    compare(pack(kF32, kF32, {n}, inputs), 1e-5f);
    compare(pack(kF32, kF16, {n}, inputs), 1e-3f);
    // What is rounded is the norm, or what is not scaled yet.
    compare(pack(kF32, kBf16, {n}, inputs), 4e-3f);
    // More columns are more that is rounded in two ways.
    compare(pack(QuantFormat{4, 32, true}, kBf16, {n}, inputs), 3e-4f);
    compare(pack(QuantFormat{8, 128, false}, kF16, {n}, inputs), 3e-4f);
  }
}

TEST(no_outputs) {
  for (const DataType compute : {kF32, kBf16}) {
    const Pair w = pack(kF32, compute, {0}, 8);
    const Numbers x(device(), numbers(8, 1), 8);
    const Matrix none = {x.matrix().data, 1, 0, 0};
    device().linear(x.matrix(), *w.device, {}, {&none, 1});
    device().linear(x.matrix(), *w.device, {}, {&none, 1}, none);
    device().synchronize();
  }
}

// A norm is not fused with a product into what is normalised.
TEST(product_into_what_was_normalised) {
  constexpr std::int64_t n = 128;
  const Pair w = pack(kF32, kF32, {n}, n);
  for (const bool residual : {false, true}) {
    CHECK(agree(numbers(n, 3), n, 0, 1e-4f, "norm, then a product into its x",
                [&](Ops& ops, Matrix x) {
                  const Numbers norm(ops, numbers(n, 2), n), h(ops, nothing(n), n);
                  ops.rms_norm(x, norm.data(), 1e-6f, h.matrix());
                  ops.linear(h.matrix(), &ops == &device() ? *w.device : *w.host, {}, {&x, 1},
                             residual ? std::optional(x) : std::nullopt);
                  ops.synchronize();
                }));
  }
}

// What is given up is not there afterwards, but the product of it is the same.
TEST(last_use) {
  constexpr std::int64_t kInputs = 72, kInner = 40;
  const Pair gate_up = pack(kBf16, kBf16, {kInner, kInner}, kInputs);
  const Pair down = pack(kBf16, kBf16, {kInputs}, kInner);
  for (const std::int64_t rows : {1, 2, 5, 40}) {
    const Numbers x(device(), numbers(rows * kInputs, 1), kInputs),
        w(device(), numbers(kInputs, 2), kInputs);
    const auto mlp = [&](bool gives_up) {
      const Numbers h(device(), nothing(rows * kInputs), kInputs),
          inner(device(), nothing(rows * kInner), kInner),
          y(device(), nothing(rows * kInputs), kInputs);
      const Matrix out = y.matrix();
      device().rms_norm(x.matrix(), w.data(), 1e-6f, h.matrix());
      if (gives_up) device().last_use(h.matrix());
      device().linear_act_mul(h.matrix(), *gate_up.device, {}, HiddenAct::Silu, inner.matrix());
      if (gives_up) device().last_use(inner.matrix());
      device().linear(inner.matrix(), *down.device, {}, {&out, 1});
      return y.read();
    };
    CHECK(is_close(mlp(true), mlp(false), 0.0f, concat("the last use of ", rows, " rows")));
  }
}

// act(gate) * up of one row and the product after it, with something done in between.
struct Mlp {
  Floats inner, y;
};
template <class Between>
Mlp mlp(Ops& ops, const Pair& gate_up, const Pair& down, float bias_of_one, Between between) {
  const auto of = [&](const Pair& w) -> const Weight& {
    return &ops == &device() ? *w.device : *w.host;
  };
  const std::int64_t inputs = of(gate_up).inputs(), columns = of(down).inputs(),
                     outputs = of(down).outputs(0);
  Floats up(static_cast<std::size_t>(columns), 0.0f);
  up[37] = bias_of_one;
  const Numbers x(ops, numbers(inputs, 1), inputs), bias(ops, up, columns),
      inner(ops, nothing(columns), columns), y(ops, nothing(outputs), outputs);
  const Matrix out = y.matrix();
  const std::vector<const float*> biases = {nullptr, bias.data()};
  ops.linear_act_mul(x.matrix(), of(gate_up), biases, HiddenAct::Silu, inner.matrix());
  between(ops, inner.matrix());
  ops.linear(inner.matrix(), of(down), {}, {&out, 1});
  return Mlp{inner.read(), y.read()};
}
void nothing_between(Ops&, Matrix) {}

// As few columns as have sums of a row of their own; of the inner ones some warps have more than others.
std::int64_t pair_columns(const QuantFormat& f) { return f.bits == 4 ? 256 : 128; }

#if defined(INFINILM_CUDA_EMULATED)
// Device memory is the host's: who has not read it does not notice.
void change_unnoticed(Ops&, Matrix inner) {
  for (emulation::Stream* s : emulation::Stream::all()) s->run_until(s->end());
  std::fill_n(inner.data, inner.cols, 1.0f);
}
bool takes_digits(const Pair& gate_up, const Pair& down) {
  const auto y = [&](auto between) { return mlp(device(), gate_up, down, 0.0f, between).y; };
  return y(change_unnoticed) == y(nothing_between);
}
#endif

// The product after act(gate) * up of one row takes what that has left for it, unless something else was asked for in between.
TEST(digits_for_the_next_product) {
  for (const QuantFormat& f : {QuantFormat{4, 32, false}, QuantFormat{4, 128, true},
                               QuantFormat{8, 32, true}, QuantFormat{8, 128, false}}) {
    if (is_quick() && !f.zeros) continue;
    const std::int64_t inputs = 8 * pair_columns(f), inner = 9 * pair_columns(f);
    const Pair gate_up = pack(f, kBf16, {inner, inner}, inputs);
    const Pair down = pack(f, kBf16, {40}, inner);
    const auto run = [&](Ops& ops, auto between) { return mlp(ops, gate_up, down, 0.0f, between); };
    const std::string what = concat(f.bits, " bits, groups of ", f.group);
    const Mlp exact = run(host(), nothing_between), found = run(device(), nothing_between);
    CHECK(is_close(found.inner, exact.inner, 2e-4f, what + ", act_mul"));
    CHECK(is_close(found.y, exact.y, 2e-4f, what + ", the next product"));
    const Mlp apart = run(device(), [](Ops& ops, Matrix) { ops.submit(); });
    CHECK(is_close(apart.inner, found.inner, 0.0f, what + ", act_mul by itself"));
    // The same digits, but for a run whose largest is rounded up to a power of two.
    CHECK(is_close(apart.y, found.y, 2e-5f, what + ", the next product by itself"));
    const auto twice = [](Ops& ops, Matrix inner) { ops.add(inner, inner); };
    CHECK(is_close(run(device(), twice).y, run(host(), twice).y, 2e-4f, what + ", doubled"));
    const Mlp beyond =
        mlp(device(), gate_up, down, std::numeric_limits<float>::infinity(), nothing_between);
    CHECK(std::isinf(beyond.inner[37]) && std::isfinite(beyond.inner[36]));
    CHECK(std::ranges::none_of(beyond.y, [](float v) { return std::isfinite(v); }));
#if defined(INFINILM_CUDA_EMULATED)
    CHECK(takes_digits(gate_up, down));
#endif
  }
}

// Digits are for weights of one kind: others make their own.
TEST(digits_are_not_for_every_product) {
  struct {
    QuantFormat gate_up, down;
    DataType compute;
    bool takes;
  } const cases[] = {{{8, 128, false}, {4, 32, false}, kBf16, false},
                     {{8, 128, false}, {8, 32, true}, kBf16, false},
                     {{8, 32, true}, {8, 128, false}, kF16, true},
                     {{8, 128, false}, {8, 128, false}, kF32, false}};
  for (const auto& c : cases) {
    const std::int64_t inner = 9 * pair_columns(c.down);
    const Pair gate_up = pack(c.gate_up, kBf16, {inner, inner}, 8 * pair_columns(c.gate_up));
    const Pair down = pack(c.down, c.compute, {40}, inner);
    const std::string what = concat(c.gate_up.bits, " bits, then ", c.down.bits, ", in ",
                                    name_of(c.compute), c.down.zeros ? ", zeros" : "");
    CHECK(is_close(mlp(device(), gate_up, down, 0.0f, nothing_between).y,
                   mlp(host(), gate_up, down, 0.0f, nothing_between).y, 5e-4f, what));
#if defined(INFINILM_CUDA_EMULATED)
    CHECK(takes_digits(gate_up, down) == c.takes);
#endif
  }
}

// What leaves digits takes none: there is memory for one product's.
TEST(digits_of_one_product_at_a_time) {
  const QuantFormat f = {8, 128, false};
  constexpr std::int64_t kColumns = 1152;
  const Pair gate_up = pack(f, kBf16, {kColumns, kColumns}, kColumns);
  CHECK(agree(nothing(kColumns), kColumns, 0, 1e-3f, "act_mul of act_mul", [&](Ops& ops, Matrix y) {
    const Weight& w = &ops == &device() ? *gate_up.device : *gate_up.host;
    const Numbers x(ops, numbers(kColumns, 1), kColumns), inner(ops, nothing(kColumns), kColumns);
    ops.linear_act_mul(x.matrix(), w, {}, HiddenAct::Silu, inner.matrix());
    ops.linear_act_mul(inner.matrix(), w, {}, HiddenAct::Silu, y);
    ops.synchronize();
  }));
}

// What last_use said is forgotten with the product that failed.
TEST(last_use_of_a_product_that_fails) {
  constexpr std::int64_t n = 64;
  const Pair five = pack(kF32, kF32, {16, 16, 16, 16, 16}, n), w = pack(kF32, kF32, {n}, n);
  const Numbers x(device(), numbers(n, 1), n), norm(device(), numbers(n, 2), n),
      h(device(), nothing(n), n), y(device(), nothing(n), n);
  const std::vector<Matrix> parts(5, Matrix{y.data(), 1, 16, 16});
  device().last_use(h.matrix());
  CHECK_THROWS(Error, "at most", device().linear(h.matrix(), *five.device, {}, parts));
  device().rms_norm(x.matrix(), norm.data(), 1e-6f, h.matrix());
  const Matrix out = y.matrix();
  device().linear(h.matrix(), *w.device, {}, {&out, 1});
  CHECK(std::isfinite(h.read()[0]));
}
