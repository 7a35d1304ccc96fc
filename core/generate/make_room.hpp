#pragma once

#include <vector>

namespace infinilm {

// Room for one more, growing as push_back does, so that the push_back itself cannot fail.
template <class T>
void make_room(std::vector<T>& values) {
  if (values.size() == values.capacity()) values.reserve(2 * values.size() + 16);
}

}  // namespace infinilm
