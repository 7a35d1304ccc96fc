// The Java side as C++ calls it: the thread's environment, references, the static methods of infinilm.Callbacks.
#pragma once

#include <jni.h>

#include <cstdint>
#include <string>

#include "infinilm/error.hpp"

namespace infinilm_java {

inline JavaVM* machine = nullptr;

// What C++ needs of Java's classes, looked up once.
struct Java {
  jclass callbacks;
  jmethodID error, hook, process, progress, warn, interrupted, drop;
  jclass bytes;  // byte[]
  jclass object;
  jfieldID cell;  // of NativeObject
};
inline Java java;

inline jint load(JavaVM* vm) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_10) != JNI_OK) return JNI_ERR;
  machine = vm;
  const auto global = [&](const char* name) {
    const jclass found = env->FindClass(name);
    return found ? static_cast<jclass>(env->NewGlobalRef(found)) : nullptr;
  };
  const auto method = [&](const char* name, const char* signature) {
    return env->ExceptionCheck() ? nullptr
                                 : env->GetStaticMethodID(java.callbacks, name, signature);
  };
  if (!(java.callbacks = global("infinilm/Callbacks"))) return JNI_ERR;
  java.error = method("error", "(I[B)Ljava/lang/Throwable;");
  java.hook = method("hook", "(Ljava/lang/Object;[BJI)V");
  java.process = method("process", "(Ljava/lang/Object;[JJ)V");
  java.progress = method("progress", "(Ljava/lang/Object;JJ)V");
  java.warn = method("warn", "([B)V");
  java.interrupted = method("interrupted", "()Z");
  java.drop = method("drop", "(Ljava/lang/Object;)V");
  if (env->ExceptionCheck()) return JNI_ERR;
  const jclass native_object = env->FindClass("infinilm/NativeObject");
  if (!native_object || !(java.cell = env->GetFieldID(native_object, "swigCPtr", "J")))
    return JNI_ERR;
  java.bytes = global("[B");
  java.object = global("java/lang/Object");
  return java.bytes && java.object ? JNI_VERSION_10 : JNI_ERR;
}

// The calling thread's environment; null where there is no machine any more.
inline JNIEnv* environment() {
  JNIEnv* env = nullptr;
  if (machine->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_10) == JNI_OK) return env;
  return machine->AttachCurrentThreadAsDaemon(reinterpret_cast<void**>(&env), nullptr) == JNI_OK
             ? env
             : nullptr;
}

class GlobalReference {
 public:
  GlobalReference(JNIEnv* env, jobject object) : object_(env->NewGlobalRef(object)) {}
  ~GlobalReference() {
    if (JNIEnv* env = environment()) env->DeleteGlobalRef(object_);
  }
  GlobalReference(const GlobalReference&) = delete;
  GlobalReference& operator=(const GlobalReference&) = delete;
  jobject get() const { return object_; }

 private:
  jobject object_;
};

// Local references made inside of a long call are let go with the frame.
class LocalFrame {
 public:
  explicit LocalFrame(JNIEnv* env) : env_(env) {
    infinilm::check<infinilm::Error>(env->PushLocalFrame(16) == 0, "the JVM is out of memory");
  }
  ~LocalFrame() { env_->PopLocalFrame(nullptr); }
  LocalFrame(const LocalFrame&) = delete;
  LocalFrame& operator=(const LocalFrame&) = delete;

 private:
  JNIEnv* env_;
};

}  // namespace infinilm_java
