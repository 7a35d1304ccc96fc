// The core's exceptions as Java's, and Java's own through the core.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>

#include "infinilm/error.hpp"
#include "support/jni.hpp"

namespace infinilm_java {

// A Throwable of a callback on its way through the core.
class JavaError : public std::exception {
 public:
  JavaError(JNIEnv* env, jthrowable error)
      : error_(std::make_shared<const GlobalReference>(env, error)) {}
  const char* what() const noexcept override { return "a Java exception"; }
  void restore(JNIEnv* env) const { env->Throw(static_cast<jthrowable>(error_->get())); }

 private:
  std::shared_ptr<const GlobalReference> error_;  // C++ exceptions are copied
};

// Throws the pending Java exception, if there is one, as JavaError.
inline void check_pending(JNIEnv* env) {
  const jthrowable error = env->ExceptionOccurred();
  if (!error) return;
  env->ExceptionClear();
  JavaError thrown(env, error);
  env->DeleteLocalRef(error);
  throw thrown;
}

// In the order of infinilm.Callbacks.error.
enum class Kind : jint {
  Value,
  Type,
  Index,
  Key,
  Overflow,
  FileNotFound,
  Os,
  Cancelled,
  Memory,
  Runtime,
  Null,
};

inline jbyteArray new_bytes(JNIEnv* env, const std::string& text) {
  const jbyteArray bytes = env->NewByteArray(static_cast<jsize>(text.size()));
  if (bytes)
    env->SetByteArrayRegion(bytes, 0, static_cast<jsize>(text.size()),
                            reinterpret_cast<const jbyte*>(text.data()));
  return bytes;
}

// Makes a Java exception pending.
inline void throw_java(JNIEnv* env, Kind kind, const std::string& message) {
  if (env->ExceptionCheck()) return;
  const jbyteArray text = new_bytes(env, message);
  const jobject error =
      text ? env->CallStaticObjectMethod(java.callbacks, java.error, static_cast<jint>(kind), text)
           : nullptr;
  if (error && !env->ExceptionCheck()) env->Throw(static_cast<jthrowable>(error));
}

// Makes the Java exception pending for the C++ one that is being handled.
inline void raise(JNIEnv* env) {
  try {
    throw;
  } catch (const JavaError& e) {
    e.restore(env);
  } catch (const infinilm::ValueError& e) {
    throw_java(env, Kind::Value, e.what());
  } catch (const infinilm::TypeError& e) {
    throw_java(env, Kind::Type, e.what());
  } catch (const infinilm::IndexError& e) {
    throw_java(env, Kind::Index, e.what());
  } catch (const infinilm::KeyError& e) {
    throw_java(env, Kind::Key, e.what());
  } catch (const infinilm::OverflowError& e) {
    throw_java(env, Kind::Overflow, e.what());
  } catch (const infinilm::FileNotFoundError& e) {
    throw_java(env, Kind::FileNotFound, e.what());
  } catch (const infinilm::OsError& e) {
    throw_java(env, Kind::Os, e.what());
  } catch (const infinilm::Cancelled& e) {
    throw_java(env, Kind::Cancelled, e.what());
  } catch (const std::bad_alloc&) {
    throw_java(env, Kind::Memory, "out of memory in the engine");
  } catch (const std::exception& e) {
    throw_java(env, Kind::Runtime, e.what());
  }
}

}  // namespace infinilm_java
