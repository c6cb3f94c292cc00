# Options, dependencies, and the one interface target that carries language level, warnings and
# sanitizers. No directory-wide flags.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(default_cuda ON)
else()
  set(default_cuda OFF)
endif()
set(CAROUSEL_CUDA ${default_cuda} CACHE STRING
    "OFF: CPU only; ON: CUDA kernels by nvcc; EMULATED: the same .cu files as C++ on the CPU")
set_property(CACHE CAROUSEL_CUDA PROPERTY STRINGS OFF ON EMULATED)
set(CAROUSEL_SANITIZE "" CACHE STRING "-fsanitize= list, e.g. address,undefined or thread")
set(CAROUSEL_MARCH "native" CACHE STRING "-march= of host code; x86-64-v3 for a build that travels")
option(CAROUSEL_BUILD_TESTS "Build tests and benchmarks" ${PROJECT_IS_TOP_LEVEL})

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

set(CAROUSEL_HAS_CUDA FALSE)   # any CUDA device, real or emulated
set(CAROUSEL_EMULATED FALSE)
if(CAROUSEL_CUDA STREQUAL "ON")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # Given below as -gencode, because CMake is unreliable with 90a.
    set(CMAKE_CUDA_ARCHITECTURES OFF)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12.4 REQUIRED)
  set(CAROUSEL_HAS_CUDA TRUE)
elseif(CAROUSEL_CUDA STREQUAL "EMULATED")
  set(CAROUSEL_HAS_CUDA TRUE)
  set(CAROUSEL_EMULATED TRUE)
elseif(NOT CAROUSEL_CUDA STREQUAL "OFF")
  message(FATAL_ERROR "CAROUSEL_CUDA is '${CAROUSEL_CUDA}', expected OFF, ON or EMULATED")
endif()

if(CAROUSEL_HAS_CUDA)
  # tools/gpu_check puts the libraries that travel with the programs there. DT_RPATH and not
  # DT_RUNPATH, because it also applies to the libraries that those need.
  set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")
  add_link_options(-Wl,--disable-new-dtags)
endif()

# With ccache a second build folder or a second clone compiles only what differs.
find_program(CAROUSEL_CCACHE ccache)
if(CAROUSEL_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}
                                  CCACHE_NOHASHDIR=1 ${CAROUSEL_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

find_package(fmt REQUIRED)
find_package(OpenMP REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
# Plain libraries: oneDNN's own package file asks for OpenCL, which Carousel does not need.
find_library(CAROUSEL_DNNL dnnl REQUIRED)
find_library(CAROUSEL_UTF8PROC utf8proc REQUIRED)
find_library(CAROUSEL_SENTENCEPIECE sentencepiece REQUIRED)

add_library(carousel_options INTERFACE)
# Not CMAKE_CXX_STANDARD: nvcc's sources would inherit it, and CMake 3.25.1 refuses them C++20.
target_compile_features(carousel_options INTERFACE cxx_std_20)
target_include_directories(carousel_options INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:include/carousel>)
target_compile_definitions(carousel_options INTERFACE CAROUSEL_CUDA=$<BOOL:${CAROUSEL_HAS_CUDA}>)

set(warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
target_compile_options(carousel_options INTERFACE
  $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:${warnings};-march=${CAROUSEL_MARCH}>>
  # -fno-math-errno and -fno-trapping-math let loops over exp and comparisons become vectors; they
  # change no value, and NaN and infinity keep their meaning.
  $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno;-fno-trapping-math>>)
if(CAROUSEL_CUDA STREQUAL "ON")
  # CMake 3.25.1 knows no CUDA20 for nvcc 13, so the language level is a plain flag.
  set(CAROUSEL_NVCC_FLAGS -std=c++20 --expt-relaxed-constexpr -Werror=all-warnings -lineinfo
      -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a
      -gencode=arch=compute_80,code=compute_80)
  target_compile_options(carousel_options INTERFACE
    $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CUDA>:${CAROUSEL_NVCC_FLAGS}>>)
endif()
if(CAROUSEL_SANITIZE)
  target_compile_options(carousel_options INTERFACE
    -fsanitize=${CAROUSEL_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(carousel_options INTERFACE -fsanitize=${CAROUSEL_SANITIZE})
endif()
