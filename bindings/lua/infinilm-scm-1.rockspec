-- From the root of a checkout: luarocks make bindings/lua/infinilm-scm-1.rockspec
-- Needs a C++20 compiler, CMake 3.26, SWIG 4.5 and nlohmann-json (pip install cmake "swig>=4.5" nlohmann-json).
rockspec_format = "3.0"
package = "infinilm"
version = "scm-1"
source = { url = "git+file://." }
description = {
  summary = "Run Llama-family models from HuggingFace directories, and look inside them",
  license = "Apache-2.0",
}
dependencies = { "lua ~> 5.4" }
build = {
  type = "command",
  build_command = [[cmake -S . -B build/luarocks -DCMAKE_BUILD_TYPE=Release -DINFINILM_TESTS=OFF \
    -DINFINILM_JAVA=OFF -DINFINILM_LUA=ON -DLUA_INCLUDE_DIR="$(LUA_INCDIR)" \
    -DINFINILM_LUA_CDIR="$(LIBDIR)" -DINFINILM_LUA_DIR="$(LUADIR)" \
    && cmake --build build/luarocks --parallel]],
  install_command = "cmake --install build/luarocks --component lua",
}
