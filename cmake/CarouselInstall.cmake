# `cmake --install` exports a package: find_package(Carousel), link Carousel::models (or engine, or
# kernels alone). The emulated device is for tests and is not installed.
if(CAROUSEL_EMULATED)
  return()
endif()
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

foreach(layer IN ITEMS options kernels engine models)
  set_target_properties(carousel_${layer} PROPERTIES EXPORT_NAME ${layer})
endforeach()
install(TARGETS carousel_options carousel_kernels carousel_engine carousel_models
        EXPORT CarouselTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS carousel_driver RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY kernels engine models DESTINATION include/carousel
        FILES_MATCHING PATTERN "*.h" PATTERN "configs" EXCLUDE)
# The configs' texts lie at ../../data from them, as far as they were made.
install(DIRECTORY models/configs DESTINATION ${CMAKE_INSTALL_DATADIR}/carousel/models)
install(DIRECTORY data DESTINATION ${CMAKE_INSTALL_DATADIR}/carousel OPTIONAL
        FILES_MATCHING PATTERN "*.txt" PATTERN "*.tsv")

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/Carousel)
install(EXPORT CarouselTargets NAMESPACE Carousel:: DESTINATION ${package_folder})
configure_package_config_file(cmake/CarouselConfig.cmake.in CarouselConfig.cmake
                              INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(CarouselConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/CarouselConfig.cmake
              ${PROJECT_BINARY_DIR}/CarouselConfigVersion.cmake DESTINATION ${package_folder})
