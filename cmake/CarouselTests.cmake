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
