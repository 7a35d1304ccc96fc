#include "io/json.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "infinilm/error.hpp"

namespace infinilm {
namespace {

// Builds the value while counting depth and refusing duplicates; hands over the members of the outermost
// object one by one if somebody wants them so.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, const std::string& source, std::size_t max_depth,
          const JsonMember* on_member)
      : text_(text), source_(source), max_depth_(max_depth), on_member_(on_member) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override {
    // "-0" is a float to every other reader, and so never a size.
    return value == 0 ? add(-0.0) : add(value);
  }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Json& object = *open_.back();
    check(!object.contains(name), source_, ": expected distinct names, found ", quoted(name),
          " twice");
    last_key_ = name;
    slot_ = &object[name];
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const Json::exception& error) override {
    std::string what = error.what();
    if (const auto end = what.find("] "); end != std::string::npos) what.erase(0, end + 2);
    if (const auto end = what.find("; last read"); end != std::string::npos) what.erase(end);
    const std::size_t at = std::min(position == 0 ? 0 : position - 1, text_.size());
    const std::size_t from = at < 20 ? 0 : at - 20;
    throw ValueError(concat(source_, ": not valid JSON at byte ", at, ": ", quoted(what),
                            last_key_.empty() ? "" : concat(", after the key ", quoted(last_key_)),
                            ", near ", quoted(text_.substr(from, 40))));
  }

 private:
  // Where the next value belongs.
  Json& place(Json&& value) {
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_object()) return *slot_ = std::move(value);
    open_.back()->push_back(std::move(value));
    return open_.back()->back();
  }

  bool add(Json value) {
    Json& added = place(std::move(value));
    hand_over(added);
    return true;
  }

  bool open(Json value) {
    check(open_.size() < max_depth_, source_, ": expected nesting of at most ", max_depth_,
          last_key_.empty() ? "" : concat(", found more in ", quoted(last_key_)));
    open_.push_back(&place(std::move(value)));
    if (open_.size() == 2 && on_member_) member_key_ = last_key_;
    return true;
  }

  bool close() {
    Json* closed = open_.back();
    open_.pop_back();
    if (on_member_ && open_.size() == 1) last_key_ = member_key_;
    hand_over(*closed);
    return true;
  }

  // The name stays behind in the root, with a null: to know it again if it comes twice.
  void hand_over(Json& value) {
    if (!on_member_ || open_.size() != 1 || !root_.is_object()) return;
    (*on_member_)(last_key_, std::move(value));
    value = nullptr;
  }

  std::string_view text_;
  const std::string& source_;
  std::size_t max_depth_;
  const JsonMember* on_member_;
  Json root_;
  std::vector<Json*> open_;  // the containers being read, outermost first
  Json* slot_ = nullptr;     // the member of the innermost object whose name was read last
  std::string last_key_;
  std::string member_key_;  // that of the outermost object's member being read
};

Json parse(std::string_view text, const std::string& source, const JsonLimits& limits,
           const JsonMember* on_member) {
  check(text.size() <= limits.max_bytes, source, ": expected at most ", limits.max_bytes,
        " bytes of JSON, found ", text.size());
  // The parser would skip a byte order mark and take a NUL for the end.
  check(!text.starts_with("\xEF\xBB\xBF"), source,
        ": expected JSON without a byte order mark, found one");
  const std::size_t nul = text.find('\0');
  check(nul == std::string_view::npos, source, ": not valid JSON: a NUL byte at ", nul);
  Builder builder(text, source, limits.max_depth, on_member);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

const char* type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "";
    case Json::value_t::boolean:
      return " (a boolean)";
    case Json::value_t::string:
      return " (a string)";
    case Json::value_t::array:
      return " (a list)";
    case Json::value_t::object:
      return " (an object)";
    case Json::value_t::number_float:
      return " (a float)";
    default:
      return "";
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits) {
  return parse(text, source, limits, nullptr);
}

void parse_json_members(std::string_view text, const std::string& source, const JsonLimits& limits,
                        const JsonMember& on_member) {
  const Json root = parse(text, source, limits, &on_member);
  check(root.is_object(), source, ": expected a JSON object, found ", describe(root));
}

std::string dump_json(const Json& value, bool indent) {
  try {
    return value.dump(indent ? 2 : -1) + (indent ? "\n" : "");
  } catch (const Json::type_error&) {
    throw ValueError("expected text in valid UTF-8, found " +
                     quoted(value.dump(-1, ' ', false, Json::error_handler_t::replace)));
  }
}

std::string describe(const Json& value) {
  constexpr std::size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  return text + type_of(value);
}

}  // namespace infinilm
