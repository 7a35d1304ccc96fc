// The limits in front of the JSON parser.
#include <string>

#include "infinilm/error.hpp"
#include "io/json.hpp"
#include "tests/check.hpp"

using namespace infinilm;

namespace {

constexpr JsonLimits kLimits{1000, 4};

Json parse(const std::string& text) { return parse_json(text, "x.json", kLimits); }

}  // namespace

TEST(what_is_in_order_is_read) {
  CHECK(parse(R"({"a":[1,2.5,null,{"b":"é"}]})")["a"][3]["b"] == "é");
  CHECK(parse("18446744073709551615").get<std::uint64_t>() == UINT64_MAX);
}

TEST(limits_hold) {
  CHECK_THROWS(ValueError, "x.json", parse(std::string(1001, ' ')));
  CHECK(parse("[[[[]]]]").is_array());
  CHECK_THROWS(ValueError, "nesting", parse("[[[[[]]]]]"));
  CHECK_THROWS(ValueError, "nesting", parse(std::string(900, '[')));
}

TEST(what_readers_disagree_about_is_refused) {
  for (const std::string text : {R"({"a":1,"a":2})", "\xEF\xBB\xBF{}", "NaN", "[1,]", "{} {}",
                                 "\"\xC3\"", "", "'a'", "01"}) {
    CHECK_THROWS(ValueError, "x.json", parse(text));
  }
  CHECK_THROWS(ValueError, "x.json", parse(std::string("{}\0", 3)));
}

TEST(members_are_handed_over_one_by_one) {
  std::string names;
  parse_json_members(R"({"a":{"x":[1]},"b":2})", "x.json", kLimits,
                     [&](const std::string& name, Json&& value) { names += name + value.dump(); });
  CHECK(names == R"(a{"x":[1]}b2)");
  CHECK_THROWS(ValueError, "twice",
               parse_json_members(R"({"a":{"x":1},"b":2,"a":3})", "x.json", kLimits,
                                  [](const std::string&, Json&&) {}));
  CHECK_THROWS(ValueError, "object",
               parse_json_members("[1]", "x.json", kLimits, [](const std::string&, Json&&) {}));
}
