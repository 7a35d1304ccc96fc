#include "io/checkpoint.hpp"

#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "infinilm/checkpoint.hpp"
#include "infinilm/error.hpp"
#include "io/files.hpp"
#include "io/json.hpp"
#include "io/safetensors.hpp"

namespace infinilm {
namespace {

namespace fs = std::filesystem;

constexpr JsonLimits kIndexLimits{100'000'000, 16};
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

using WeightMap = std::map<std::string, std::string>;  // tensor -> shard

// An index may name files of its own directory and nothing else.
void check_plain_name(const std::string& shard, const std::string& index) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." &&
                     shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  check(plain, index, ": expected the name of a file in the same directory, found ", quoted(shard));
}

WeightMap read_index(const std::string& path) {
  const Json index = parse_json(read_file(path, kIndexLimits.max_bytes), path, kIndexLimits);
  check(index.is_object() && index.contains("weight_map"), path,
        ": expected an object with a weight_map, found ", describe(index));
  const Json& map = index["weight_map"];
  check(map.is_object() && !map.empty(), path,
        ": expected weight_map to name tensors and files, found ", describe(map));
  WeightMap result;
  for (const auto& [name, shard] : map.items()) {
    check(shard.is_string(), path, ": tensor ", quoted(name),
          ": expected the name of a file, found ", describe(shard));
    check_plain_name(shard.get<std::string>(), path);
    result.emplace(name, shard.get<std::string>());
  }
  return result;
}

bool is_inside(const fs::path& path, const fs::path& directory) {
  const fs::path relative = path.lexically_relative(directory);
  return !relative.empty() && *relative.begin() != "..";
}

// A shard may be a link, but not out of the directory, except to where HuggingFace's own cache keeps the contents of
// snapshots/<revision>: ../../blobs.
void check_no_escape(const std::string& directory, const std::string& shard,
                     const std::string& index) {
  std::error_code error;
  const fs::path home = fs::canonical(directory, error);
  const fs::path target = error ? fs::path() : fs::canonical(home / shard, error);
  check<FileNotFoundError>(!error, index,
                           " names a file that is not there: ", join_path(directory, shard));
  const bool cached = home.parent_path().filename() == "snapshots" &&
                      is_inside(target, home.parent_path().parent_path() / "blobs");
  check(cached || is_inside(target, home), index, ": expected files of the same directory, found ",
        quoted(shard), ", a link to ", quoted(target.string()));
}

Checkpoint open_sharded(const std::string& directory, const std::string& index) {
  const WeightMap map = read_index(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : map) shards.insert(shard);
  Checkpoint checkpoint{{}, index};
  std::map<std::string, std::string> found_in;
  for (const std::string& shard : shards) {
    check_no_escape(directory, shard, index);
    for (auto& [name, tensor] : read_safetensors(join_path(directory, shard)).tensors) {
      const auto [first, added] = found_in.emplace(name, shard);
      check(added, index, ": expected tensor ", quoted(name), " in one file, found it in ",
            quoted(first->second), " and ", quoted(shard));
      checkpoint.tensors.emplace(name, std::move(tensor));
    }
  }
  for (const auto& [name, shard] : map) {
    const auto found = found_in.find(name);
    check(found != found_in.end() && found->second == shard, index, ": expected tensor ",
          quoted(name), " in ", quoted(shard), ", found it ",
          found == found_in.end() ? "nowhere" : "in " + quoted(found->second));
  }
  return checkpoint;
}

[[noreturn]] void throw_no_weights(const std::string& directory) {
  for (const char* name :
       {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"}) {
    if (!is_file(join_path(directory, name))) continue;
    throw FileNotFoundError(
        concat("no ", kSingle, ", only ", name,
               ", which is not read because it can run code. Convert it with Transformers: "
               "AutoModelForCausalLM.from_pretrained(directory).save_pretrained(directory): ",
               directory));
  }
  throw FileNotFoundError(
      concat("no ", kSingle, " and no ", kIndex, " in the directory: ", directory));
}

}  // namespace

// The order is HF's: the single file wins over an index.
Checkpoint Checkpoint::open(const std::string& directory) {
  check<FileNotFoundError>(is_directory(directory), "no such directory: ", directory);
  const std::string single = join_path(directory, kSingle);
  if (is_file(single)) return Checkpoint{read_safetensors(single).tensors, single};
  const std::string index = join_path(directory, kIndex);
  if (is_file(index)) return open_sharded(directory, index);
  throw_no_weights(directory);
}

std::map<std::string, Tensor> load_checkpoint(const std::string& directory) {
  return Checkpoint::open(directory).tensors;
}

}  // namespace infinilm
