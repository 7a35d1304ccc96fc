// Functions, and what the language supplies to long calls without the caller.
INFINILM_LUA_IN(to_value, infinilm::HookCallback)
INFINILM_LUA_IN(to_value, std::vector<infinilm::LogitsProcessor>)
INFINILM_LUA_IN(to_value, infinilm::ProgressCallback)

%typemap(in, numinputs=0) infinilm::Frontend& {
  $1 = &infinilm_lua::frontend();
}
