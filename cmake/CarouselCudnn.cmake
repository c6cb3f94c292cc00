# cuDNN: on a GPU the LSTM is compared with it, in speed and in values. A build needs only its headers,
# from a toolkit, from Python's nvidia-cudnn-cu12 or -cu13, or from -DCAROUSEL_CUDNN_INCLUDE=…; the
# programs load the library when they run. The emulated device has a stand-in for the library.
set(CAROUSEL_HAS_CUDNN ${CAROUSEL_EMULATED})
if(CAROUSEL_CUDA STREQUAL "ON")
  find_package(Python3 COMPONENTS Interpreter REQUIRED)
  execute_process(COMMAND ${Python3_EXECUTABLE} -c
                          "import nvidia.cudnn as package; print(list(package.__path__)[0])"
                  OUTPUT_VARIABLE wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_path(CAROUSEL_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} "${wheel}/include"
            DOC "Folder of cuDNN's headers, version 9")
  if(CAROUSEL_CUDNN_INCLUDE)
    message(STATUS "cuDNN: headers of ${CAROUSEL_CUDNN_INCLUDE}")
    set(CAROUSEL_HAS_CUDNN TRUE)
  else()
    set(why "no cudnn.h, which -DCAROUSEL_CUDNN_INCLUDE=… may name")
    message(STATUS "cuDNN: SKIPPED, ${why}; lstm_vs_cudnn and the LSTM's comparison are not built")
    add_custom_target(lstm_vs_cudnn COMMAND ${CMAKE_COMMAND} -E echo "SKIPPED lstm_vs_cudnn: ${why}")
  endif()
endif()
if(NOT CAROUSEL_HAS_CUDNN)
  return()
endif()

add_library(carousel_cudnn STATIC ${PROJECT_SOURCE_DIR}/tests/support/cudnn.cpp)
target_link_libraries(carousel_cudnn PUBLIC carousel_kernels PRIVATE ${CMAKE_DL_LIBS})
if(CAROUSEL_EMULATED)
  # A shared library, to be loaded as the real one is. It uses the program's emulated device.
  add_library(carousel_emulated_cudnn SHARED
              ${PROJECT_SOURCE_DIR}/tests/emulation/libraries/cudnn.cpp)
  target_include_directories(carousel_emulated_cudnn PRIVATE
                             ${PROJECT_SOURCE_DIR}/tests/emulation/include)
  target_link_libraries(carousel_emulated_cudnn PRIVATE carousel_options)
  set_target_properties(carousel_emulated_cudnn PROPERTIES OUTPUT_NAME cudnn SOVERSION 9
                        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
  # By its path: the loader could find a real one first, and the sanitizers' dlopen ignores RPATH.
  target_compile_definitions(carousel_cudnn PRIVATE
                             CAROUSEL_CUDNN_LIBRARY="$<TARGET_FILE:carousel_emulated_cudnn>")
  add_dependencies(carousel_cudnn carousel_emulated_cudnn)
  if(CAROUSEL_SANITIZE MATCHES thread)  # as the emulated products, kernels/CMakeLists.txt
    target_compile_options(carousel_emulated_cudnn PRIVATE -fno-sanitize=thread)
  endif()
else()
  target_compile_definitions(carousel_cudnn PRIVATE CAROUSEL_CUDNN_LIBRARY="libcudnn.so.9")
  target_include_directories(carousel_cudnn SYSTEM PRIVATE ${CAROUSEL_CUDNN_INCLUDE})
endif()

# Links a program with the wrapper. Its exports let the stand-in find the program's emulated device.
function(carousel_link_cudnn program)
  target_link_libraries(${program} PRIVATE carousel_cudnn)
  set_target_properties(${program} PROPERTIES ENABLE_EXPORTS ${CAROUSEL_EMULATED})
endfunction()
