#include "kernels/common/range.h"

#include "kernels/common/journal.h"

namespace carousel {

#if CAROUSEL_CUDA
void push_profiler_range(const char* name) noexcept;  // range.cu
void pop_profiler_range() noexcept;
#endif

Range::Range(const char* name) noexcept {
  if (Journal* const journal = Journal::mine()) journal->enter(name);
#if CAROUSEL_CUDA
  push_profiler_range(name);
#endif
}

Range::~Range() {
#if CAROUSEL_CUDA
  pop_profiler_range();
#endif
  if (Journal* const journal = Journal::mine()) journal->leave();
}

}  // namespace carousel
