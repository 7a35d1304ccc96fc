# What every C++ file of the project is compiled with.

# Warnings belong to our own files; the C++ that SWIG writes does not call this.
function(infinilm_warnings target)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic>")
  if(INFINILM_WERROR)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Werror>")
  endif()
endfunction()

if(INFINILM_SANITIZE)
  # These come after the build type's own flags, so that -O1 wins over -O3 and reports have line numbers.
  set(sanitize -fsanitize=${INFINILM_SANITIZE} -fno-omit-frame-pointer)
  add_compile_options(${sanitize} -fno-sanitize-recover=all -O1 -g)
  add_link_options(${sanitize})
endif()

# A module exports nothing that came from an archive. Where the C++ library is linked statically, its copies in several modules of
# one process would otherwise be mixed up: symbols that the linker keeps unique, such as the numbers of locale facets.
function(infinilm_hide_archives target)
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_options(${target} PRIVATE LINKER:--exclude-libs,ALL)
  endif()
endfunction()
