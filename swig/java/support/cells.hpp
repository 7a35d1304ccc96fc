// What a Java object holds: a cell with a share in a core object. `close` empties the cell, from any thread and at any
// time; a call that is under way has a share of its own.
#pragma once

#include <atomic>
#include <memory>

#include "support/errors.hpp"

namespace infinilm_java {

struct Cell {
  std::atomic<std::shared_ptr<void>> object;
};

inline Cell* to_cell(jlong cell) {
  return reinterpret_cast<Cell*>(cell);  // NOLINT: the number is one of new_cell's
}

// 0 for null.
template <class T>
jlong new_cell(std::shared_ptr<T> object) {
  if (!object) return 0;
  return reinterpret_cast<jlong>(new Cell{std::shared_ptr<void>(std::move(object))});
}

template <class T>
jlong new_cell(const T& value) {
  return new_cell(std::make_shared<T>(value));
}

// A share for the time of a call. Null with a Java exception for null and for closed objects.
template <class T>
std::shared_ptr<T> pin(JNIEnv* env, jlong cell, const char* name) {
  if (cell == 0) {
    throw_java(env, Kind::Null, std::string(name) + " must not be null");
    return nullptr;
  }
  auto object = std::static_pointer_cast<T>(to_cell(cell)->object.load());
  const std::string what = std::string_view(name) == "self" ? "this object" : name;
  if (!object) throw_java(env, Kind::Runtime, what + " was closed");
  return object;
}

// The same where null is allowed: false if an exception is pending.
template <class T>
bool pin_optional(JNIEnv* env, jlong cell, const char* name, std::shared_ptr<T>& object) {
  if (cell == 0) return true;
  object = pin<T>(env, cell, name);
  return object != nullptr;
}

inline void empty(jlong cell) { to_cell(cell)->object.store(nullptr); }
inline void free_cell(jlong cell) { delete to_cell(cell); }

}  // namespace infinilm_java
