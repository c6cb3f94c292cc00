# Test executables, one per area of the tree. They exist before the ops, because carousel_add_op()
# adds the test and the benchmark of an op to them.
find_package(GTest REQUIRED)
find_package(benchmark REQUIRED)
find_library(CAROUSEL_RAPIDCHECK rapidcheck REQUIRED)
include(GoogleTest)

foreach(area IN ITEMS kernel engine model)
  add_executable(carousel_${area}_tests)
  target_link_libraries(carousel_${area}_tests PRIVATE carousel_test_support)
endforeach()
add_library(carousel_test_support STATIC)
target_link_libraries(carousel_test_support PUBLIC carousel_models GTest::gtest GTest::gtest_main
                                                   ${CAROUSEL_RAPIDCHECK})
add_executable(carousel_bench ${PROJECT_SOURCE_DIR}/tests/bench/main.cpp)
target_link_libraries(carousel_bench PRIVATE carousel_test_support benchmark::benchmark)
include(CarouselCudnn)

# carousel_register_tests(area): what ctest runs of carousel_<area>_tests. Each GoogleTest is a test
# of ctest, so that `ctest -j` spreads them over the cores. A process starts slowly under a sanitizer
# (0.3 s under ThreadSanitizer), so there each test of ctest is a quarter of the program.
function(carousel_register_tests area)
  set(target carousel_${area}_tests)
  if(NOT CAROUSEL_SANITIZE)
    gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES PROPERTIES LABELS ${area})
    return()
  endif()
  set(environment GTEST_TOTAL_SHARDS=4)
  if(CAROUSEL_SANITIZE MATCHES thread)
    # ThreadSanitizer does not know libgomp's barriers. A test that is started by hand needs this too.
    list(APPEND environment OMP_THREAD_LIMIT=1)
    # Sweeps judge numbers, which are the same in every build, and the CPU has no threads here.
    list(APPEND environment "GTEST_FILTER=-*Sweep*:*RecordedWorst*:*FewCases*:*/cpu")
  endif()
  foreach(shard RANGE 3)
    add_test(NAME ${area}_tests_${shard} COMMAND ${target})
    set_tests_properties(${area}_tests_${shard} PROPERTIES LABELS ${area} TIMEOUT 1800
                         ENVIRONMENT "${environment};GTEST_SHARD_INDEX=${shard}")
  endforeach()
endfunction()

# carousel_filter_tests(area INCLUDE|EXCLUDE regex): by their paths under tests/<area>.
function(carousel_filter_tests area mode regex)
  get_target_property(sources carousel_${area}_tests SOURCES)
  list(FILTER sources ${mode} REGEX "tests/[a-z]*/(${regex})\\.(cpp|cu)$")
  set_property(TARGET carousel_${area}_tests PROPERTY SOURCES ${sources})
endfunction()
