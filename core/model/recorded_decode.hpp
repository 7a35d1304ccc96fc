// Decode steps as recordings of the device: where a step's many small operations cost more to ask for than to run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "model/attention.hpp"
#include "model/rotary.hpp"
#include "model/step.hpp"

namespace infinilm {

// One for each number of sequences, kind of cache and set of captured points, made when such steps have come a few times. A recording works in an
// arena of its own, whose memory nobody else ever sees. Thread-safe.
class RecordedDecode {
 public:
  explicit RecordedDecode(std::shared_ptr<Ops> ops);
  ~RecordedDecode();

  // True for one token for each sequence, logits of each, and nobody who watches but captures; then hooks are frozen until it has run.
  static bool takes(Step& step, std::size_t logit_rows);
  // `body` runs such a step on tables of the device and gives its logits. Returns a copy of them.
  Tensor run(Step& step, const RotaryEmbedding& rotary,
             const std::function<Activation(const RopeTables&)>& body);
  // The same of a step whose ids are not known yet. Empty, and nothing was run, if there is no recording that suits.
  std::optional<Tensor> run_ahead(Step& step, const RotaryEmbedding& rotary);
  // Lets go of all recordings, with their memory, that no step uses now.
  void forget();

 private:
  struct Entry;
  std::shared_ptr<Entry> entry_for(Step& step);
  // A copy of what the entry's recording has left, for the step and for captures.
  static Tensor results(Entry& entry, Step& step);

  std::shared_ptr<Ops> ops_;
  std::mutex mutex_;                             // guards entries_
  std::vector<std::shared_ptr<Entry>> entries_;  // the one used last comes last
};

}  // namespace infinilm
