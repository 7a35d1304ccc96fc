// Steps that are recorded once and run again.
#include "cuda/tests/attention_cases.hpp"
#include "cuda/tests/weights.hpp"

using namespace cuda_tests;

namespace {

// What a recorded step gives does not depend on how it comes by its ids: from the device, which chooses them before, or from the host.
void check_ids_that_are_chosen(Ops::Recording& recording, const std::vector<std::int64_t>& ids,
                               const std::vector<SequenceRows>& sequences, auto check_result) {
  constexpr std::int64_t kTokens = 50;
  Floats logits = numbers(static_cast<std::int64_t>(ids.size()) * kTokens, 5);
  std::vector<Chosen> known;
  for (std::size_t r = 0; r < ids.size(); ++r) {
    logits[r * kTokens + static_cast<std::size_t>(ids[r])] = 9.0f;
    known.push_back({ids[r], 9.0f});
  }
  const Numbers on_device(device(), logits, kTokens);
  const std::vector<std::int64_t> unknown(ids.size(), 0);
  const auto chosen = device().argmax(on_device.matrix());
  CHECK(device().replay(recording, unknown, sequences, chosen.get()));
  check_result();
  CHECK(chosen->wait().back().column == ids.back());
  KnownChoice on_host(known);
  CHECK(device().replay(recording, unknown, sequences, &on_host));
  check_result();
}

// A recorded step gives for other ids and other lengths what the operations themselves give.
template <class Format>
void check_recording(Format format) {
  constexpr std::int64_t kHidden = 64, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kSequences = 3;
  const Pair table = pack(kBf16, kBf16, {50}, kHidden);
  const std::vector<std::int64_t> outputs_of_qkv = {kHeads * kHeadDim, kKvHeads * kHeadDim,
                                                    kKvHeads * kHeadDim};
  const Pair qkv = pack(format, kBf16, outputs_of_qkv, kHidden);
  Ops& ops = device();
  const AttentionCase c{kHeads, kKvHeads, kHeadDim, 0, kBf16, {1, 1, 1}, {130, 64, 1}};
  const Cache cache(ops, c, kBf16);
  const std::int64_t total = 130 + 64 + 1;
  const Numbers past(ops, numbers(total * kKvHeads * kHeadDim, 1), kKvHeads * kHeadDim);
  ops.kv_write(past.matrix(), past.matrix(), cache.past(), cache.shape());
  std::vector<SequenceRows> now = cache.now();
  for (std::int64_t s = 0; s < kSequences; ++s) now[static_cast<std::size_t>(s)].row_begin = s;
  const Numbers norm(ops, numbers(kHidden, 2), kHidden);
  const Numbers x(ops, nothing(kSequences * kHidden), kHidden),
      h(ops, nothing(kSequences * kHidden), kHidden);
  const Numbers q(ops, nothing(kSequences * kHidden), kHidden),
      y(ops, nothing(kSequences * kHidden), kHidden);
  const Numbers k(ops, nothing(kSequences * 32), 32), v(ops, nothing(kSequences * 32), 32);
  const Numbers cos(ops, numbers(kSequences * 8, 3), 8), sin(ops, numbers(kSequences * 8, 4), 8);
  std::vector<std::int64_t> ids = {3, 49, 0};
  const auto body = [&] {
    ops.begin_step(ids, now);
    const std::vector<Matrix> outputs = {q.matrix(), k.matrix(), v.matrix()};
    ops.embed(ids, *table.device, x.matrix());
    ops.rms_norm(x.matrix(), norm.data(), 1e-6f, h.matrix());
    ops.linear(h.matrix(), *qkv.device, {}, outputs);
    ops.rope(q.matrix(), kHeadDim, cos.matrix(), sin.matrix());
    ops.rope(k.matrix(), kHeadDim, cos.matrix(), sin.matrix());
    ops.kv_write(k.matrix(), v.matrix(), now, cache.shape());
    ops.attention(q.matrix(), now, cache.shape(), y.matrix());
  };
  body();
  ops.give_back();  // what it works with
  CHECK(ops.record(body) == nullptr);
  body();
  ids[1] = 7;  // what was not sent before the recording
  const auto recording = ops.record(body);
  for (int step = 0; step < 3; ++step) {
    for (auto& id : ids) id = (id + 7) % 50;
    for (auto& s : now) s.past += step == 0 ? 0 : 1;  // the last block has room
    CHECK(ops.replay(*recording, ids, now, nullptr));
    const Floats found = y.read();
    body();
    const Floats expected = y.read();
    CHECK(is_close(found, expected, 0.0f, "a recorded step"));
    check_ids_that_are_chosen(*recording, ids, now, [&] {
      CHECK(is_close(y.read(), expected, 0.0f, "a step whose ids are chosen"));
    });
  }
}

}  // namespace

TEST(recording) {
  if (!device().can_record()) return;
  check_recording(kBf16);
  check_recording(Ordered{{8, 32, true}});
}
