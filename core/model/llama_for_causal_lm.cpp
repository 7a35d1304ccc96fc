#include <algorithm>
#include <utility>

#include "hooks/plan.hpp"
#include "infinilm/error.hpp"
#include "infinilm/model.hpp"
#include "io/checkpoint.hpp"
#include "model/llama.hpp"
#include "model/memory_advice.hpp"
#include "model/parameters.hpp"
#include "model/pass_ahead.hpp"
#include "model/save.hpp"

namespace infinilm {

namespace {

std::string with_numbers(const std::string& shape, const LlamaConfig& c) {
  const std::pair<const char*, std::size_t> letters[] = {
      {"A*D", c.num_attention_heads * c.head_dim()},
      {"K*D", c.kv_dim()},
      {"H", c.hidden_size},
      {"A", c.num_attention_heads},
      {"K", c.num_key_value_heads},
      {"D", c.head_dim()},
      {"I", c.intermediate_size},
      {"V", c.vocab_size},
  };
  std::string text;
  for (std::size_t i = 0; i < shape.size();) {
    const auto* letter = std::find_if(std::begin(letters), std::end(letters), [&](const auto& l) {
      return shape.compare(i, std::string_view(l.first).size(), l.first) == 0;
    });
    const bool found = letter != std::end(letters);
    text += found ? std::to_string(letter->second) : std::string(1, shape[i]);
    i += found ? std::string_view(letter->first).size() : 1;
  }
  return text;
}

void check_ids(const std::vector<std::int64_t>& ids, std::size_t vocab_size) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    check<IndexError>(ids[i] >= 0 && static_cast<std::uint64_t>(ids[i]) < vocab_size, "token id ",
                      ids[i], " at position ", i, " is outside of the vocabulary of ", vocab_size);
  }
}

// The rows of a step, and the slots of the cache that they continue.
struct Request {
  Batch batch;
  std::vector<std::size_t> slots;
  std::vector<std::int64_t> logit_rows;
  Shape logit_leading;
};

void add_sequence(Request& request, const std::int64_t* ids, std::size_t count, std::size_t slot) {
  check(count > 0, "expected at least one token in sequence ", request.slots.size(),
        ", found none");
  SequenceRows rows;
  rows.row_begin = request.batch.rows();
  rows.rows = static_cast<std::int64_t>(count);
  request.batch.ids.insert(request.batch.ids.end(), ids, ids + count);
  request.batch.sequences.push_back(rows);
  request.slots.push_back(slot);
}

// The last `keep` rows of every sequence (all for 0).
void pick_logit_rows(Request& request, std::size_t keep) {
  for (const SequenceRows& s : request.batch.sequences) {
    const std::int64_t count =
        keep == 0 ? s.rows : std::min(s.rows, static_cast<std::int64_t>(keep));
    for (std::int64_t r = s.rows - count; r < s.rows; ++r)
      request.logit_rows.push_back(s.row_begin + r);
  }
}

// Gives the rows of `request` their places in `cache`, which is in use.
std::vector<StepSequence> place(Request& request, KvCacheState& cache, const LlamaConfig& config) {
  request.batch.kv = cache.layout();
  std::vector<StepSequence> placed;
  for (std::size_t i = 0; i < request.slots.size(); ++i) {
    SequenceRows& s = request.batch.sequences[i];
    const std::size_t slot = request.slots[i];
    s.past = static_cast<std::int64_t>(cache.length(slot));
    check(static_cast<std::size_t>(s.past + s.rows) <= config.max_sequence_length(),
          "a sequence of ", s.past + s.rows, " tokens is longer than the model's limit of ",
          config.max_sequence_length(), " (max_position_embeddings)");
    s.blocks = cache.reserve(slot, static_cast<std::size_t>(s.rows));
    placed.push_back({s.row_begin, s.rows, s.past, static_cast<std::int64_t>(slot)});
  }
  return placed;
}

// Runs `request` on `cache`, which gains its tokens if all goes well. Captures are given what they keep also of a pass that fails, for
// instance by a callback that has seen enough; but not if memory runs out and it `is_tried_again`.
Tensor run_step(const Llama& llama, const std::shared_ptr<HookConnection>& hooks,
                std::int64_t step_number, Request request, KvCacheState& cache, Frontend& frontend,
                bool is_tried_again) {
  const LlamaConfig& config = llama.config();
  check(cache.owner() == llama.identity(),
        "this KV cache belongs to another model; make one with model.new_cache()");
  check_ids(request.batch.ids, config.vocab_size);
  const KvCacheState::Use use(cache);
  StepInfo info{step_number, place(request, cache, config)};
  Step step(llama.ops(), llama.arena(), std::move(request.batch),
            HookRunner(hooks, frontend, std::move(info)), frontend);
  Tensor logits;
  try {
    logits = llama.forward(step, request.logit_rows, request.logit_leading);
  } catch (const OutOfMemory&) {
    if (!is_tried_again) step.hand_over();
    throw;
  } catch (...) {
    step.hand_over();
    throw;
  }
  for (std::size_t i = 0; i < request.slots.size(); ++i) {
    const SequenceRows& s = step.batch.sequences[i];
    cache.commit(request.slots[i], std::span(step.batch.ids)
                                       .subspan(static_cast<std::size_t>(s.row_begin),
                                                static_cast<std::size_t>(s.rows)));
  }
  step.hand_over();
  llama.arena().end_step();
  return logits;
}

// The same. Where memory runs out, all that the step had is given back, with what lies idle; then it is tried once more, or said
// what would fit.
Tensor run(const Llama& llama, const std::shared_ptr<HookConnection>& hooks,
           std::int64_t step_number, const Request& request, KvCacheState& cache,
           Frontend& frontend) {
  StepSize size{{},
                request.batch.rows(),
                static_cast<std::int64_t>(request.logit_rows.size()),
                cache.layout()};
  const auto attempt = [&](bool is_tried_again) {
    return run_step(llama, hooks, step_number, request, cache, frontend, is_tried_again);
  };
  if (!HookRunner(hooks, frontend, {}).wants_callbacks()) {
    try {
      return attempt(true);
    } catch (const OutOfMemory&) {
      llama.give_back();  // nobody has seen anything of it, and the cache is as it was
    }
  }
  try {
    return attempt(false);
  } catch (const OutOfMemory& error) {
    llama.give_back();
    for (const std::size_t slot : request.slots) size.past.push_back(cache.length(slot));
    const std::optional<Room> room = llama.ops().room();
    throw OutOfMemory(
        concat(error.what(), "; ", step_advice(llama.config(), size, llama.ops(), room)));
  }
}

Request request_from(const Tensor& input_ids) {
  check<TypeError>(input_ids.dtype() == DataType::I64, "input_ids: expected int64, found ",
                   name_of(input_ids.dtype()));
  check(input_ids.ndim() == 1 || input_ids.ndim() == 2,
        "input_ids: expected shape [tokens] or [batch, tokens], found ", str_of(input_ids.shape()));
  check(input_ids.numel() > 0, "input_ids: expected at least one token, found shape ",
        str_of(input_ids.shape()));
  const Tensor ids = input_ids.to(Device()).contiguous();
  const Shape& shape = ids.shape();
  const auto rows = static_cast<std::size_t>(shape.back());
  const auto batch = static_cast<std::size_t>(ids.numel()) / rows;
  Request request;
  request.batch.leading = shape;
  const auto* data = reinterpret_cast<const std::int64_t*>(ids.data());
  for (std::size_t i = 0; i < batch; ++i) add_sequence(request, data + i * rows, rows, i);
  return request;
}

void check_compute_dtype(DataType dtype, const Ops& ops) {
  const bool half = ops.can_compute(DataType::F16);
  check(ops.can_compute(dtype), "dtype: expected ", half ? "float32, float16" : "float32",
        " or bfloat16 on ", half ? ops.device().str() : "the CPU", ", found ", name_of(dtype));
}

// A config that names float16 computes in float32 where the device has no float16.
LlamaConfig with_compute_dtype(LlamaConfig config, const Ops& ops) {
  if (config.dtype == DataType::F16 && !ops.can_compute(DataType::F16))
    config.dtype = DataType::F32;
  check_compute_dtype(config.dtype, ops);
  return config;
}

}  // namespace

LlamaForCausalLM::LlamaForCausalLM(const LlamaConfig& config, const std::string& device,
                                   std::optional<DataType> kv_cache_dtype,
                                   const Quantization& quantization)
    : config_(with_compute_dtype(config, *ops_for(Device(device)))),
      device_(device),
      kv_cache_dtype_(kv_cache_dtype.value_or(config_.dtype)),
      quantization_(quantization),
      hooks_(std::make_shared<HookConnection>(nullptr, config.num_hidden_layers, "")) {
  config_.check();
  check(quantization_ || !quantization_.int8_activations || is_quantized_already(config_),
        "activations: expected none without quantization, found \"int8\"; add "
        "quantization=\"int8\" or \"int4\"");
  ops_for(device_)->kv_block_bytes(1, 1, kv_cache_dtype_);  // throws for what the device has not
}

LlamaForCausalLM::~LlamaForCausalLM() = default;

std::shared_ptr<LlamaForCausalLM> LlamaForCausalLM::from_pretrained(const std::string& directory,
                                                                    const LoadOptions& options,
                                                                    Frontend& frontend) {
  LlamaConfig config = LlamaConfig::from_pretrained(directory);
  if (options.dtype) {
    check_compute_dtype(*options.dtype, *ops_for(Device(options.device)));
    config.dtype = *options.dtype;
  }
  auto model = std::make_shared<LlamaForCausalLM>(config, options.device, options.kv_cache_dtype,
                                                  options.quantization);
  const LlamaConfig& own = model->config_;
  const Checkpoint checkpoint = Checkpoint::open(directory);
  const auto ops = ops_for(model->device_);
  if (const std::string advice = ops->advice(); !advice.empty()) frontend.warn(advice);
  LlamaWeights weights = load_weights(own, model->quantization_, checkpoint.tensors,
                                      checkpoint.source, *ops, options.progress);
  const std::vector<std::string> extra = unexpected_names(own, checkpoint.tensors);
  if (!extra.empty()) {
    frontend.warn(concat(checkpoint.source, ": ", extra.size(),
                         " tensors that the model does not use, such as ", quoted(extra.front())));
  }
  model->llama_ = std::make_shared<const Llama>(own, ops, std::move(weights));
  return model;
}

LlamaConfig LlamaForCausalLM::config() const { return config_; }
Device LlamaForCausalLM::device() const { return device_; }
DataType LlamaForCausalLM::kv_cache_dtype() const { return kv_cache_dtype_; }
Quantization LlamaForCausalLM::quantization() const {
  if (!is_quantized_already(config_) || !is_loaded()) return quantization_;
  Quantization found = common_quantization(loaded()->weights());
  found.int8_activations = quantization_.int8_activations;
  return found;
}

bool LlamaForCausalLM::is_loaded() const noexcept {
  const std::lock_guard lock(mutex_);
  return llama_ != nullptr;
}

std::size_t LlamaForCausalLM::nbytes() const { return loaded()->weights().nbytes(); }

std::size_t LlamaForCausalLM::nbytes_per_pass() const {
  const std::shared_ptr<const Llama> llama = loaded();
  const LlamaWeights& weights = llama->weights();
  return weights.nbytes() - (weights.head ? weights.embedding->nbytes() : 0);
}

std::shared_ptr<const Llama> LlamaForCausalLM::loaded() const {
  const std::lock_guard lock(mutex_);
  check<Error>(llama_ != nullptr,
               "the model has no weights yet: call load_state_dict or use from_pretrained");
  return llama_;
}

std::shared_ptr<HookConnection> LlamaForCausalLM::connection() const {
  const std::lock_guard lock(mutex_);
  return hooks_;
}

std::pair<std::shared_ptr<HookConnection>, std::int64_t> LlamaForCausalLM::begin_step() {
  const std::lock_guard lock(mutex_);
  return {hooks_, steps_++};
}

Tensor LlamaForCausalLM::forward(const Tensor& input_ids, const std::shared_ptr<KvCache>& cache,
                                 std::size_t logits_to_keep, Frontend& frontend) {
  const auto llama = loaded();
  Request request = request_from(input_ids);
  const std::size_t batch = request.slots.size();
  check(!cache || cache->batch_size() == batch, "input_ids: expected a batch of ",
        cache ? cache->batch_size() : 0, " sequences as in the KV cache, found ", batch);
  pick_logit_rows(request, logits_to_keep);
  request.logit_leading = input_ids.shape();
  request.logit_leading.back() = static_cast<std::int64_t>(request.logit_rows.size() / batch);
  const auto state = cache ? cache->state() : llama->new_cache(batch, kv_cache_dtype_);
  const auto [hooks, number] = begin_step();
  return run(*llama, hooks, number, request, *state, frontend);
}

Tensor LlamaForCausalLM::forward_packed(const std::vector<TokenIds>& ids,
                                        const std::vector<std::size_t>& slots,
                                        const std::shared_ptr<KvCache>& cache, LogitRows rows,
                                        Frontend& frontend) {
  const auto llama = loaded();
  check(cache != nullptr, "forward_packed needs a KV cache");
  check(!ids.empty() && ids.size() == slots.size(),
        "expected one slot for each of at least one sequence, found ", ids.size(),
        " sequences and ", slots.size(), " slots");
  Request request;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    check(std::count(slots.begin(), slots.end(), slots[i]) == 1, "slot ", slots[i],
          " is named twice");
    add_sequence(request, ids[i].data(), ids[i].size(), slots[i]);
  }
  request.batch.leading = {request.batch.rows()};
  pick_logit_rows(request, rows == LogitRows::Last ? 1 : 0);
  request.logit_leading = {static_cast<std::int64_t>(request.logit_rows.size())};
  const auto [hooks, number] = begin_step();
  return run(*llama, hooks, number, request, *cache->state(), frontend);
}

std::unique_ptr<PassAhead> LlamaForCausalLM::forward_ahead(const std::vector<std::size_t>& slots,
                                                           const std::shared_ptr<KvCache>& cache,
                                                           Choice& chosen, Frontend& frontend) {
  const auto llama = loaded();
  const auto hooks = connection();
  KvCacheState& state = *cache->state();
  if (!llama->ops().can_record() || state.owner() != llama->identity()) return nullptr;
  std::optional<KvCacheState::Use> use;
  try {
    use.emplace(state);
  } catch (const Error&) {
    return nullptr;  // somebody else is at it: whoever needs the pass will see
  }
  auto pass = std::make_unique<PassAhead>();
  pass->llama = llama;
  pass->hooks = hooks;
  pass->registrations = hooks->generation();
  pass->cache = cache->state();
  pass->uses = state.uses();
  pass->slots = slots;
  Request request;
  constexpr std::int64_t kUnknown = 0;
  for (const std::size_t slot : slots) add_sequence(request, &kUnknown, 1, slot);
  request.batch.leading = {request.batch.rows()};
  request.batch.chosen = &chosen;
  try {
    StepInfo info{0, place(request, state, llama->config())};
    Step step(llama->ops(), llama->arena(), std::move(request.batch),
              HookRunner(hooks, frontend, std::move(info)), frontend);
    std::optional<Tensor> logits = llama->forward_ahead(step);
    if (!logits) return nullptr;
    pass->logits = *std::move(logits);
    pass->kept = step.take_kept();
    for (const std::size_t slot : slots) pass->blocks.push_back(state.last_block(slot));
  } catch (const OutOfMemory&) {
    return nullptr;  // whoever needs the pass will hear of it
  }
  llama->arena().end_step();
  return pass;
}

bool LlamaForCausalLM::complete(const PassAhead& pass, const std::vector<std::size_t>& slots,
                                const TokenIds& ids) {
  const bool is_seen_whole = slots.size() == pass.slots.size();
  if (!is_seen_whole && !pass.kept.empty()) return false;
  KvCacheState& cache = *pass.cache;
  const KvCacheState::Use use(cache);
  std::int64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    const bool would_be_the_same = llama_ == pass.llama.lock() && hooks_ == pass.hooks.lock() &&
                                   hooks_->generation() == pass.registrations &&
                                   cache.uses() == pass.uses + 1;
    if (!would_be_the_same) return false;
    number = steps_++;
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto own = std::find(pass.slots.begin(), pass.slots.end(), slots[i]);
    cache.put_back(slots[i], pass.blocks[static_cast<std::size_t>(own - pass.slots.begin())]);
    cache.commit(slots[i], {&ids[i], 1});
  }
  HookRunner::hand_over(pass.kept, number);
  return true;
}

std::shared_ptr<KvCache> LlamaForCausalLM::new_cache(std::size_t batch_size,
                                                     std::optional<DataType> dtype) const {
  return std::make_shared<KvCache>(
      loaded()->new_cache(batch_size, dtype.value_or(kv_cache_dtype_)));
}

void LlamaForCausalLM::load_state_dict(const std::map<std::string, Tensor>& state) {
  const std::vector<std::string> extra = unexpected_names(config_, state);
  check(extra.empty(), "the state dict has ", extra.size(),
        " names that the model does not, such as ", extra.empty() ? "" : quoted(extra.front()));
  for (const auto& [name, tensor] : state) {
    static_cast<void>(tensor.data());  // waits, if at all, here: threads that pack cannot throw
  }
  const auto ops = ops_for(device_);
  LlamaWeights weights =
      load_weights(config_, quantization_, state, "the state dict", *ops, nullptr);
  auto llama = std::make_shared<const Llama>(config_, ops, std::move(weights));
  const std::lock_guard lock(mutex_);
  llama_.swap(llama);
}

std::map<std::string, Tensor> LlamaForCausalLM::state_dict() const {
  const auto llama = loaded();
  std::map<std::string, Tensor> state;
  for (const std::string& name : parameter_names()) {
    state.emplace(name, parameter_of(config_, llama->weights(), llama->ops(), name));
  }
  return state;
}

void LlamaForCausalLM::save_pretrained(const std::string& directory,
                                       const ProgressCallback& progress) const {
  const auto llama = loaded();
  save_model(config_, llama->weights(), llama->ops(), directory, progress);
}

std::vector<std::string> LlamaForCausalLM::parameter_names() const {
  std::vector<std::string> names;
  for (ParameterInfo& p : parameters(config_)) names.push_back(std::move(p.name));
  return names;
}

Tensor LlamaForCausalLM::get_parameter(const std::string& name) const {
  const auto llama = loaded();
  return parameter_of(config_, llama->weights(), llama->ops(), name);
}

void LlamaForCausalLM::set_hook_registry(std::shared_ptr<HookRegistry> registry,
                                         const std::string& prefix) {
  auto hooks =
      std::make_shared<HookConnection>(std::move(registry), config_.num_hidden_layers, prefix);
  const std::lock_guard lock(mutex_);
  hooks_.swap(hooks);
}

std::shared_ptr<HookRegistry> LlamaForCausalLM::hook_registry() const {
  return connection()->registry();
}

std::vector<HookPoint> LlamaForCausalLM::hook_points() const {
  std::unique_lock lock(mutex_);
  const std::string prefix = hooks_->prefix();
  lock.unlock();
  return infinilm::hook_points(config_, prefix);
}

std::vector<HookPoint> hook_points(const LlamaConfig& config, const std::string& prefix) {
  parameters(config);  // refuses what is no model, and more layers than any model has
  std::vector<HookPoint> points;
  for_each_point(config.num_hidden_layers, [&](Point point, int layer) {
    const HookPointPattern& row = hook_point_table()[static_cast<std::size_t>(point)];
    HookPoint p{BUILD_HOOK_PREFIX(prefix, point_name(row.name, layer)),
                row.shape,
                with_numbers(row.shape, config),
                row.when,
                {},
                layer};
    for (const std::string& alias : row.aliases) {
      p.aliases.push_back(BUILD_HOOK_PREFIX(prefix, point_name(alias, layer)));
    }
    points.push_back(std::move(p));
  });
  return points;
}

}  // namespace infinilm
