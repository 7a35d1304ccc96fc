#include "model/recorded_decode.hpp"

#include <algorithm>
#include <utility>

namespace infinilm {
namespace {

// A batch whose sequences end one by one has each size for a few steps only.
constexpr int kStepsBefore = 3;
constexpr std::size_t kMostEntries = 8;

// A step works in another arena as long as this lives.
class Inside {
 public:
  Inside(Step& step, Arena& arena, std::vector<Shown>& shown) : step_(step) {
    step_.work_in(arena, shown);
  }
  ~Inside() { step_.work_outside(); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Step& step_;
};

}  // namespace

struct RecordedDecode::Entry {
  const std::int64_t rows;
  const DataType kv_dtype;
  const std::vector<std::size_t> captured;  // by point_index
  std::mutex mutex;                         // guards what follows; held while it is used
  int steps = 0;
  std::unique_ptr<Arena> arena;
  Activation angles, logits;
  std::vector<Shown> shown;
  std::unique_ptr<Ops::Recording> recording;  // is dropped before the memory that it uses

  explicit Entry(Step& step)
      : rows(step.batch.rows()),
        kv_dtype(step.batch.kv.dtype),
        captured(step.wanted().begin(), step.wanted().end()) {}
  bool suits(Step& step) const {
    return rows == step.batch.rows() && kv_dtype == step.batch.kv.dtype &&
           std::ranges::equal(captured, step.wanted());
  }
  // False if there is nothing that could be run for this step.
  bool replay(Step& step) const {
    const Batch& batch = step.batch;
    return recording && step.ops.replay(*recording, batch.ids, batch.sequences, batch.chosen);
  }
};

RecordedDecode::RecordedDecode(std::shared_ptr<Ops> ops) : ops_(std::move(ops)) {}
RecordedDecode::~RecordedDecode() = default;

bool RecordedDecode::takes(Step& step, std::size_t logit_rows) {
  const auto rows = static_cast<std::size_t>(step.batch.rows());
  return rows == step.batch.sequences.size() && rows == logit_rows && step.freeze_hooks();
}

void RecordedDecode::forget() {
  std::vector<std::shared_ptr<Entry>> all;  // dropped after the unlock
  const std::lock_guard lock(mutex_);
  all.swap(entries_);
}

std::shared_ptr<RecordedDecode::Entry> RecordedDecode::entry_for(Step& step) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const auto& entry) { return entry->suits(step); });
  if (found != entries_.end()) {
    std::rotate(found, found + 1, entries_.end());
    return entries_.back();
  }
  if (entries_.size() == kMostEntries) entries_.erase(entries_.begin());
  entries_.push_back(std::make_shared<Entry>(step));
  return entries_.back();
}

Tensor RecordedDecode::run(Step& step, const RotaryEmbedding& rotary,
                           const std::function<Activation(const RopeTables&)>& body) {
  const std::shared_ptr<Entry> entry = entry_for(step);
  const std::lock_guard lock(entry->mutex);
  Entry& e = *entry;
  if (!e.arena) e.arena = std::make_unique<Arena>(ops_, Arena::Idle::Kept);
  const Inside inside(step, *e.arena, e.shown);
  if (e.steps == 0) e.angles = step.make(2 * rotary.half());
  const RopeTables rope = rotary.tables(step.ops, step.batch.sequences, e.angles.view());
  if (!e.replay(step)) {
    // What it worked with has moved: it will be there again after the next steps.
    if (e.recording) e.steps = 1;
    e.recording.reset();
    const auto ask = [&] {
      e.shown.clear();
      step.ops.begin_step(step.batch.ids, step.batch.sequences);
      e.logits = body(rope);
    };
    if (++e.steps > kStepsBefore) e.recording = step.ops.record(ask);
    if (!e.replay(step)) ask();
  }
  return results(e, step);
}

std::optional<Tensor> RecordedDecode::run_ahead(Step& step, const RotaryEmbedding& rotary) {
  const std::shared_ptr<Entry> entry = entry_for(step);
  const std::lock_guard lock(entry->mutex);
  if (!entry->recording) return std::nullopt;
  const Inside inside(step, *entry->arena, entry->shown);
  rotary.tables(step.ops, step.batch.sequences, entry->angles.view());
  if (!entry->replay(step)) return std::nullopt;
  return results(*entry, step);
}

Tensor RecordedDecode::results(Entry& entry, Step& step) {
  const Activation& logits = entry.logits;
  Activation copy(step.own_arena(), step.ops, logits.rows(), logits.cols());
  step.ops.copy(logits.view(), copy.fresh());
  step.deliver(entry.shown);
  return copy.deliver({logits.rows(), logits.cols()});
}

}  // namespace infinilm
