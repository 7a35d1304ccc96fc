// Which of the compiled levels the processor and the operating system support.
#pragma once

#include <string>
#include <vector>

namespace infinilm::cpu {

// Worst first; "scalar" is always there.
const std::vector<std::string>& supported_levels();

}  // namespace infinilm::cpu
