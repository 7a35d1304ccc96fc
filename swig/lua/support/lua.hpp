// Lua's C interface.
#pragma once

extern "C" {
#include "lauxlib.h"
#include "lua.h"
}

static_assert(LUA_VERSION_NUM == 504, "this binding is written for Lua 5.4");
