# Finds nlohmann/json.hpp: an installed CMake package, else the headers in the nlohmann-json wheel (which has no CMake
# package: Python is asked for its folder). Defines nlohmann_json::nlohmann_json.

find_package(nlohmann_json 3.11 CONFIG QUIET)
if(nlohmann_json_FOUND)
  set(NlohmannJson_FOUND TRUE)
  return()
endif()

if(NOT NlohmannJson_INCLUDE_DIR)
  find_package(Python COMPONENTS Interpreter QUIET)
  if(Python_Interpreter_FOUND)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c "import nlohmann_json; print(nlohmann_json.get_include())"
      OUTPUT_VARIABLE wheel_headers OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_path(NlohmannJson_INCLUDE_DIR nlohmann/json.hpp HINTS "${wheel_headers}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  NlohmannJson
  REQUIRED_VARS NlohmannJson_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install it with 'pip install nlohmann-json', or give -DNlohmannJson_INCLUDE_DIR=")

if(NlohmannJson_FOUND AND NOT TARGET nlohmann_json::nlohmann_json)
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json SYSTEM
                             INTERFACE "${NlohmannJson_INCLUDE_DIR}")
endif()
