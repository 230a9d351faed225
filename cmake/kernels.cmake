# Instruction sets of the kernels: each target_*.cpp is compiled for its own processors and chosen at run
# time, so that one build serves them all. They are optimized in debug builds too: an inline function
# that is not inlined there would be emitted with instructions that others may not have.
set(kernel_flags -O3 -ffp-contract=off)
set(scalar_flags "")
set(neon_flags "")
set(avx2_flags -mavx2 -mf16c -mfma)
set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2_flags "")
  set(avx512_flags "")
endif()
foreach(target scalar avx2 avx512 neon)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/kernels/target_${target}.cpp PROPERTIES
                              COMPILE_OPTIONS "${kernel_flags};${${target}_flags}")
endforeach()

# Sanitizers share functions between object files by design, so the check is for plain builds.
if(PYCCL_TESTS AND NOT PYCCL_SANITIZE AND CMAKE_NM)
  add_test(NAME kernels_private
           COMMAND ${CMAKE_COMMAND} -D NM=${CMAKE_NM} -D "OBJECTS=$<TARGET_OBJECTS:pyccl_kernels>"
                   -P ${PROJECT_SOURCE_DIR}/cmake/kernels_private.cmake)
endif()

# Not part of "all": ninja bench_kernels.
if(EXISTS ${PROJECT_SOURCE_DIR}/bench/kernels.cpp)
  add_executable(bench_kernels EXCLUDE_FROM_ALL bench/kernels.cpp)
  target_link_libraries(bench_kernels PRIVATE pyccl_kernels)
endif()
