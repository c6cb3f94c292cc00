#pragma once

#include <cstddef>

// What the emulation tells the sanitizers. In builds without them these functions do nothing.

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if EMULATION_TSAN
#include <sanitizer/tsan_interface.h>
// The runtime exports these two without declaring them.
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

namespace emulation {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
inline void poison(const void* p, std::size_t n) { __asan_poison_memory_region(p, n); }
inline void unpoison(const void* p, std::size_t n) { __asan_unpoison_memory_region(p, n); }
inline void before_switch(void** own_fake_stack, const void* bottom, std::size_t bytes) {
  __sanitizer_start_switch_fiber(own_fake_stack, bottom, bytes);
}
inline void after_switch(void* own_fake_stack, const void** from, std::size_t* bytes) {
  __sanitizer_finish_switch_fiber(own_fake_stack, from, bytes);
}
#else
inline constexpr bool kAddressSanitizer = false;
inline void poison(const void*, std::size_t) {}
inline void unpoison(const void*, std::size_t) {}
inline void before_switch(void**, const void*, std::size_t) {}
inline void after_switch(void*, const void**, std::size_t*) {}
#endif

#if EMULATION_TSAN
inline constexpr bool kThreadSanitizer = true;
inline void acquire(void* object) { __tsan_acquire(object); }
inline void release(void* object) { __tsan_release(object); }
inline void* tsan_current() { return __tsan_get_current_fiber(); }
inline void* tsan_create() { return __tsan_create_fiber(__tsan_switch_to_fiber_no_sync); }
inline void tsan_switch(void* fiber) {
  __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}
inline void tsan_destroy(void* fiber) { __tsan_destroy_fiber(fiber); }
inline void tsan_ignore(bool on) { on ? __tsan_ignore_thread_begin() : __tsan_ignore_thread_end(); }
#else
inline constexpr bool kThreadSanitizer = false;
inline void acquire(void*) {}
inline void release(void*) {}
inline void* tsan_current() { return nullptr; }
inline void* tsan_create() { return nullptr; }
inline void tsan_switch(void*) {}
inline void tsan_destroy(void*) {}
inline void tsan_ignore(bool) {}
#endif

}  // namespace emulation
