// Java's functional objects as the core's callbacks, and Java's part of long calls.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "infinilm/frontend.hpp"
#include "infinilm/generate.hpp"
#include "infinilm/hooks.hpp"
#include "support/values.hpp"

namespace infinilm_java {

inline JNIEnv* needed_environment() {
  JNIEnv* env = environment();
  infinilm::check<infinilm::Error>(env != nullptr, "there is no Java machine any more");
  return env;
}

// A callback in an infinilm.Slot, which the registry's (or generation's) Java object holds and C++ holds weakly, so that
// Java's collector sees every cycle. When the core drops it, the slot leaves its owner.
class WeakSlot {
 public:
  WeakSlot(JNIEnv* env, jobject slot) : slot_(env->NewWeakGlobalRef(slot)) {}
  ~WeakSlot() {
    JNIEnv* env = environment();
    if (!env) return;
    const jthrowable pending = env->ExceptionOccurred();
    env->ExceptionClear();
    if (const jobject slot = env->NewLocalRef(slot_)) {
      env->CallStaticVoidMethod(java.callbacks, java.drop, slot);
      if (env->ExceptionCheck()) env->ExceptionClear();
      env->DeleteLocalRef(slot);
    }
    env->DeleteWeakGlobalRef(slot_);
    if (pending) env->Throw(pending);
  }
  WeakSlot(const WeakSlot&) = delete;
  WeakSlot& operator=(const WeakSlot&) = delete;

  jobject get(JNIEnv* env) const {
    const jobject slot = env->NewLocalRef(slot_);
    infinilm::check<infinilm::Error>(
        slot != nullptr, "the object that held this callback is gone: keep the registry");
    return slot;
  }

 private:
  jweak slot_;
};

struct Hook {
  std::shared_ptr<WeakSlot> slot;

  void operator()(const std::string& name, const infinilm::Tensor& tensor, int layer_idx) const {
    JNIEnv* env = needed_environment();
    const LocalFrame frame(env);
    const jobject held = slot->get(env);  // before there is a cell that Java must free
    env->CallStaticVoidMethod(java.callbacks, java.hook, held, from_value(env, name),
                              new_cell(tensor), static_cast<jint>(layer_idx));
    check_pending(env);
  }
};

struct Processor {
  std::shared_ptr<WeakSlot> slot;

  void operator()(const infinilm::TokenIds& tokens, const infinilm::Tensor& logits) const {
    JNIEnv* env = needed_environment();
    const LocalFrame frame(env);
    const jobject held = slot->get(env);  // before there is a cell that Java must free
    env->CallStaticVoidMethod(java.callbacks, java.process, held, from_value(env, tokens),
                              new_cell(logits));
    check_pending(env);
  }
};

struct Progress {
  std::shared_ptr<GlobalReference> listener;  // only for the time of one call

  void operator()(std::size_t done, std::size_t total) const {
    JNIEnv* env = needed_environment();
    env->CallStaticVoidMethod(java.callbacks, java.progress, listener->get(),
                              static_cast<jlong>(done), static_cast<jlong>(total));
    check_pending(env);
  }
};

inline bool to_value(JNIEnv* env, jobject slot, const std::string& field,
                     infinilm::HookCallback& value) {
  if (!check_present(env, slot, field)) return false;
  value = Hook{std::make_shared<WeakSlot>(env, slot)};
  return true;
}

// null: none for this prompt.
inline bool to_value(JNIEnv* env, jobject slot, const std::string&,
                     infinilm::LogitsProcessor& value) {
  if (slot) value = Processor{std::make_shared<WeakSlot>(env, slot)};
  return true;
}
inline bool to_value(JNIEnv* env, jobjectArray slots, const std::string& field,
                     std::vector<infinilm::LogitsProcessor>& values) {
  return to_vector<jobject>(env, slots, field, values);
}

inline bool to_value(JNIEnv* env, jobject listener, const std::string&,
                     infinilm::ProgressCallback& value) {
  if (listener) value = Progress{std::make_shared<GlobalReference>(env, listener)};
  return true;
}

// Warnings through Engine's handler; a thread that was interrupted stops the core.
class JavaFrontend : public infinilm::Frontend {
 public:
  void warn(const std::string& text) override {
    JNIEnv* env = needed_environment();
    const LocalFrame frame(env);
    env->CallStaticVoidMethod(java.callbacks, java.warn, from_value(env, text));
    check_pending(env);
  }
  bool interrupted() override {
    JNIEnv* env = needed_environment();
    const bool stop = env->CallStaticBooleanMethod(java.callbacks, java.interrupted);
    check_pending(env);
    return stop;
  }
};

inline infinilm::Frontend& frontend() {
  static JavaFrontend instance;
  return instance;
}

}  // namespace infinilm_java
