// Java arrays as the core's values. `to_value` returns false with a Java exception pending; `from_value` gives a local
// reference. The other half, from and to Java's collections, is infinilm.Values.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "infinilm/generate.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/model.hpp"
#include "infinilm/tensor.hpp"
#include "support/cells.hpp"

namespace infinilm_java {

inline bool check_present(JNIEnv* env, jobject object, const std::string& field) {
  if (object) return true;
  throw_java(env, Kind::Null, field + " must not be null");
  return false;
}

template <class Unsigned>
bool to_unsigned(JNIEnv* env, jlong number, const std::string& field, Unsigned& value) {
  if (number < 0) {
    throw_java(env, Kind::Value, field + " must not be negative, found " + std::to_string(number));
    return false;
  }
  value = static_cast<Unsigned>(number);
  return true;
}

inline bool to_value(JNIEnv* env, jbyteArray bytes, const std::string& field, std::string& value) {
  if (!check_present(env, bytes, field)) return false;
  value.resize(static_cast<std::size_t>(env->GetArrayLength(bytes)));
  env->GetByteArrayRegion(bytes, 0, static_cast<jsize>(value.size()),
                          reinterpret_cast<jbyte*>(value.data()));
  return true;
}

inline bool to_value(JNIEnv* env, jlongArray array, const std::string& field,
                     std::vector<std::int64_t>& value) {
  static_assert(sizeof(jlong) == sizeof(std::int64_t));
  if (!check_present(env, array, field)) return false;
  value.resize(static_cast<std::size_t>(env->GetArrayLength(array)));
  env->GetLongArrayRegion(array, 0, static_cast<jsize>(value.size()),
                          reinterpret_cast<jlong*>(value.data()));
  return true;
}

inline bool to_value(JNIEnv* env, jlongArray array, const std::string& field,
                     std::vector<std::size_t>& values) {
  std::vector<std::int64_t> numbers;
  if (!to_value(env, array, field, numbers)) return false;
  values.resize(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const std::string name = field + "[" + std::to_string(i) + "]";
    if (!to_unsigned(env, numbers[i], name, values[i])) return false;
  }
  return true;
}

inline bool to_value(JNIEnv* env, jfloatArray array, const std::string& field,
                     std::vector<float>& value) {
  if (!check_present(env, array, field)) return false;
  value.resize(static_cast<std::size_t>(env->GetArrayLength(array)));
  env->GetFloatArrayRegion(array, 0, static_cast<jsize>(value.size()), value.data());
  return true;
}

// An element of an array: a tensor, by its object so that it lives as long as the array.
inline bool to_value(JNIEnv* env, jobject object, const std::string& field,
                     infinilm::Tensor& value) {
  if (!check_present(env, object, field)) return false;
  const auto tensor =
      pin<infinilm::Tensor>(env, env->GetLongField(object, java.cell), field.c_str());
  if (tensor) value = *tensor;
  return tensor != nullptr;
}

// An infinilm.Slot (callbacks.hpp).
bool to_value(JNIEnv* env, jobject slot, const std::string& field,
              infinilm::LogitsProcessor& value);

// Elements by `to_value`; `Element` is their JNI type.
template <class Element, class Value>
bool to_vector(JNIEnv* env, jobjectArray array, const std::string& field,
               std::vector<Value>& values) {
  if (!check_present(env, array, field)) return false;
  values.resize(static_cast<std::size_t>(env->GetArrayLength(array)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const LocalFrame frame(env);
    const auto item =
        static_cast<Element>(env->GetObjectArrayElement(array, static_cast<jsize>(i)));
    if (!to_value(env, item, field + "[" + std::to_string(i) + "]", values[i])) return false;
  }
  return true;
}

inline bool to_value(JNIEnv* env, jobjectArray array, const std::string& field,
                     std::vector<infinilm::TokenIds>& values) {
  return to_vector<jlongArray>(env, array, field, values);
}
inline bool to_value(JNIEnv* env, jobjectArray array, const std::string& field,
                     std::vector<std::string>& values) {
  return to_vector<jbyteArray>(env, array, field, values);
}
inline bool to_value(JNIEnv* env, jobjectArray array, const std::string& field,
                     std::vector<infinilm::Tensor>& values) {
  return to_vector<jobject>(env, array, field, values);
}

// A mapping comes as two arrays: the keys and the values.
template <class Value>
bool to_value(JNIEnv* env, jobjectArray pair, const std::string& field,
              std::map<std::string, Value>& values) {
  if (!check_present(env, pair, field)) return false;
  std::vector<std::string> names;
  std::vector<Value> items;
  const auto keys = static_cast<jobjectArray>(env->GetObjectArrayElement(pair, 0));
  const auto array = static_cast<jobjectArray>(env->GetObjectArrayElement(pair, 1));
  if (!to_value(env, keys, "a key of " + field, names) || !to_value(env, array, field, items))
    return false;
  for (std::size_t i = 0; i < names.size(); ++i)
    values.insert_or_assign(std::move(names[i]), std::move(items.at(i)));
  return true;
}

// Of an array with no element or one.
template <class Value>
bool to_value(JNIEnv* env, jlongArray array, const std::string& field,
              std::optional<Value>& value) {
  std::vector<std::int64_t> numbers;
  if (!to_value(env, array, field, numbers)) return false;
  value.reset();
  if (numbers.empty()) return true;
  if constexpr (std::is_signed_v<Value>) {
    value = numbers[0];
    return true;
  } else {
    return to_unsigned(env, numbers[0], field, value.emplace());
  }
}

inline bool to_value(JNIEnv*, jint ordinal, const std::string&,
                     std::optional<infinilm::DataType>& value) {
  if (ordinal >= 0) value = static_cast<infinilm::DataType>(ordinal);
  return true;
}
inline jint from_value(JNIEnv*, const std::optional<infinilm::DataType>& value) {
  return value ? static_cast<jint>(*value) : -1;
}

inline jbyteArray from_value(JNIEnv* env, const std::string& value) {
  return new_bytes(env, value);
}

template <class Number>
jlongArray from_value(JNIEnv* env, const std::vector<Number>& values) {
  static_assert(sizeof(Number) == sizeof(jlong));
  const jlongArray array = env->NewLongArray(static_cast<jsize>(values.size()));
  if (array)
    env->SetLongArrayRegion(array, 0, static_cast<jsize>(values.size()),
                            reinterpret_cast<const jlong*>(values.data()));
  return array;
}

inline jfloatArray from_value(JNIEnv* env, const std::vector<float>& values) {
  const jfloatArray array = env->NewFloatArray(static_cast<jsize>(values.size()));
  if (array) env->SetFloatArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return array;
}

template <class Value>
jlongArray from_value(JNIEnv* env, const std::optional<Value>& value) {
  std::vector<std::int64_t> numbers;
  if (value) numbers.push_back(static_cast<std::int64_t>(*value));
  return from_value(env, numbers);
}

template <class Value>
jobjectArray new_array(JNIEnv* env, jclass element, const std::vector<Value>& values) {
  const jobjectArray array =
      env->NewObjectArray(static_cast<jsize>(values.size()), element, nullptr);
  for (std::size_t i = 0; array && i < values.size(); ++i) {
    const LocalFrame frame(env);
    env->SetObjectArrayElement(array, static_cast<jsize>(i), from_value(env, values[i]));
  }
  return array;
}

inline jobjectArray from_value(JNIEnv* env, const std::vector<std::string>& values) {
  return new_array(env, java.bytes, values);
}
inline jobjectArray from_value(JNIEnv* env, const std::vector<infinilm::TokenIds>& values) {
  return new_array(env, java.object, values);
}

// Objects of the core: each a cell with a copy.
template <class Value>
jlongArray cells_of(JNIEnv* env, const std::vector<Value>& values) {
  std::vector<std::int64_t> cells;
  for (const Value& value : values) cells.push_back(new_cell(value));
  return from_value(env, cells);
}
inline jlongArray from_value(JNIEnv* env, const std::vector<infinilm::Tensor>& values) {
  return cells_of(env, values);
}

// An array with one element.
inline jobjectArray boxed(JNIEnv* env, jobject element) {
  return element ? env->NewObjectArray(1, java.object, element) : nullptr;
}

template <class Value>
jobjectArray from_value(JNIEnv* env, const std::map<std::string, Value>& values) {
  std::vector<std::string> names;
  std::vector<Value> items;
  for (const auto& [name, value] : values) {
    names.push_back(name);
    items.push_back(value);
  }
  const jobjectArray pair = env->NewObjectArray(2, java.object, nullptr);
  if (!pair) return nullptr;
  env->SetObjectArrayElement(pair, 0, from_value(env, names));
  env->SetObjectArrayElement(pair, 1, from_value(env, items));
  return pair;
}

}  // namespace infinilm_java
