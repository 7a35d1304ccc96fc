// Memory on machines with several nodes (sockets), each with memory of its own.
//
// Weights are read by whatever thread is free, so no page has a reader to lie beside. Pages are dealt out to the nodes in turn
// instead: every thread then finds the same mixture, and all nodes' memory channels work at once. By first touch they would lie where
// the thread ran that packed them, which is as good as that only while the threads are spread evenly.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace infinilm::cpu {

// "0-2,8" -> 0, 1, 2, 8: how the system writes sets of processors and nodes. What is no such list ends it.
std::vector<int> parse_cpu_list(const std::string& text);

// The nodes under `folder` (node0, node1, …, each with a cpulist) that have one of `cpus`.
std::vector<int> nodes_of(const std::vector<int>& cpus, const std::string& folder);

// Asks the system to deal out the pages of fresh memory, whole pages of it, to the nodes of the processors that this process may use.
// Does nothing on one node, or where somebody (numactl) has chosen a policy for the process.
void interleave(void* memory, std::size_t nbytes) noexcept;

}  // namespace infinilm::cpu
