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
  Inside(Step& step, Arena& arena) : step_(step) { step_.work_in(arena); }
  ~Inside() { step_.work_outside(); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Step& step_;
};

}  // namespace

struct RecordedDecode::Entry {
  std::int64_t rows;
  DataType kv_dtype;
  std::mutex mutex;  // guards what follows; held while it is used
  int steps = 0;
  std::unique_ptr<Arena> arena;
  Activation angles, logits;
  std::unique_ptr<Ops::Recording> recording;  // is dropped before the memory that it uses

  Entry(std::int64_t r, DataType dtype) : rows(r), kv_dtype(dtype) {}
};

RecordedDecode::RecordedDecode(std::shared_ptr<Ops> ops) : ops_(std::move(ops)) {}
RecordedDecode::~RecordedDecode() = default;

bool RecordedDecode::suits(Step& step, std::size_t logit_rows) {
  const auto rows = static_cast<std::size_t>(step.batch.rows());
  return !step.is_watched() && rows == step.batch.sequences.size() && rows == logit_rows;
}

void RecordedDecode::forget() {
  std::vector<std::shared_ptr<Entry>> all;  // dropped after the unlock
  const std::lock_guard lock(mutex_);
  all.swap(entries_);
}

std::shared_ptr<RecordedDecode::Entry> RecordedDecode::entry_for(const Step& step) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return entry->rows == step.batch.rows() && entry->kv_dtype == step.batch.kv.dtype;
  });
  if (found != entries_.end()) {
    std::rotate(found, found + 1, entries_.end());
    return entries_.back();
  }
  if (entries_.size() == kMostEntries) entries_.erase(entries_.begin());
  entries_.push_back(std::make_shared<Entry>(step.batch.rows(), step.batch.kv.dtype));
  return entries_.back();
}

Tensor RecordedDecode::run(Step& step, const RotaryEmbedding& rotary,
                           const std::function<Activation(const RopeTables&)>& body) {
  const std::shared_ptr<Entry> entry = entry_for(step);
  const std::lock_guard lock(entry->mutex);
  Entry& e = *entry;
  if (!e.arena) e.arena = std::make_unique<Arena>(ops_, Arena::Idle::Kept);
  const Inside inside(step, *e.arena);
  if (e.steps == 0) e.angles = step.make(2 * rotary.half());
  const RopeTables rope = rotary.tables(step.ops, step.batch.sequences, e.angles.view());
  const auto replay = [&] {
    return e.recording && step.ops.replay(*e.recording, step.batch.ids, step.batch.sequences);
  };
  if (!replay()) {
    // What it worked with has moved: it will be there again after the next steps.
    if (e.recording) e.steps = 1;
    e.recording.reset();
    const auto ask = [&] {
      step.ops.begin_step(step.batch.ids, step.batch.sequences);
      e.logits = body(rope);
    };
    if (++e.steps > kStepsBefore) e.recording = step.ops.record(ask);
    if (!replay()) ask();
  }
  Activation copy(step.own_arena(), step.ops, e.logits.rows(), e.logits.cols());
  step.ops.copy(e.logits.view(), copy.fresh());
  return copy.deliver({e.logits.rows(), e.logits.cols()});
}

}  // namespace infinilm
