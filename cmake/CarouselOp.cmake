# carousel_add_op(name [NO_TAPE])
#
# An op is a contract, a CPU path, a CUDA kernel, a tape rule, a test, an oracle and a benchmark.
# They are found by their file names; the configure step stops and names all that are missing. NO_TAPE
# is for ops without a tape rule: optimisers, and ops that only move data. If <name>.cpp exists, it
# holds the checks of the op.
function(carousel_add_op name)
  cmake_parse_arguments(op "NO_TAPE" "" "" ${ARGN})
  set(parts kernels/${name}/${name}.h kernels/${name}/${name}_cpu.cpp
            kernels/${name}/${name}_cuda.cu tests/reference/${name}.h
            tests/kernels/${name}_test.cpp tests/bench/${name}_bench.cpp)
  if(NOT op_NO_TAPE)
    list(APPEND parts engine/ops/${name}.cpp)
  endif()
  set(missing "")
  foreach(part IN LISTS parts)
    if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${part})
      list(APPEND missing ${part})
    endif()
  endforeach()
  if(missing)
    list(JOIN missing "\n  " missing)
    message(FATAL_ERROR "op '${name}' is incomplete; missing:\n  ${missing}")
  endif()

  target_sources(carousel_kernels PRIVATE ${PROJECT_SOURCE_DIR}/kernels/${name}/${name}_cpu.cpp)
  if(EXISTS ${PROJECT_SOURCE_DIR}/kernels/${name}/${name}.cpp)
    target_sources(carousel_kernels PRIVATE ${PROJECT_SOURCE_DIR}/kernels/${name}/${name}.cpp)
  endif()
  carousel_cuda_sources(carousel_kernels ${PROJECT_SOURCE_DIR}/kernels/${name}/${name}_cuda.cu)
  if(NOT op_NO_TAPE)
    target_sources(carousel_engine PRIVATE ${PROJECT_SOURCE_DIR}/engine/ops/${name}.cpp)
  endif()
  if(CAROUSEL_BUILD_TESTS)
    target_sources(carousel_kernel_tests PRIVATE ${PROJECT_SOURCE_DIR}/tests/kernels/${name}_test.cpp)
    target_sources(carousel_bench PRIVATE ${PROJECT_SOURCE_DIR}/tests/bench/${name}_bench.cpp)
  endif()
endfunction()

# Adds .cu files to a target: by nvcc, as C++ against tests/emulation (g++ knows no `#pragma
# unroll`), or not at all.
function(carousel_cuda_sources target)
  if(CAROUSEL_EMULATED)
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES
      LANGUAGE CXX COMPILE_OPTIONS "-xc++;-Wno-unknown-pragmas")
  endif()
  if(CAROUSEL_HAS_CUDA)
    target_sources(${target} PRIVATE ${ARGN})
  endif()
endfunction()
