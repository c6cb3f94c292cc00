#include "tests/emulation/language/fiber.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <deque>
#include <new>

#include "tests/emulation/language/sanitizer.h"

#if EMULATION_TSAN
/// ThreadSanitizer keeps a history of 256 KiB per fiber instead of 2 MiB.
extern "C" const char* __tsan_default_options() { return "history_size=0"; }
#endif

namespace emulation {

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

struct Fiber {
  char* stack = nullptr;  // above a guard page
  fcontext_t context = nullptr;
  void* fake_stack = nullptr;
  void* tsan = nullptr;  // ThreadSanitizer's handle
  void (*body)() = nullptr;
};

namespace {

constexpr std::size_t kStackBytes = kAddressSanitizer || kThreadSanitizer ? 512 << 10 : 64 << 10;
constexpr std::size_t kGuardBytes = 4096;

/// The context that resumes fibers, and what the sanitizers need of it.
struct Host {
  fcontext_t context = nullptr;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;
  void* tsan = nullptr;
};
Host host;
Fiber* current = nullptr;

void enter(transfer_t from) {
  host.context = from.fctx;
  after_switch(nullptr, &host.stack, &host.stack_bytes);
  for (;;) {  // one body for each time that the fiber is taken from the pool
    current->body();
    suspend();
  }
}

void prepare(Fiber& fiber) {
  unpoison(fiber.stack, kStackBytes);  // what an abandoned body left
  fiber.context = make_fcontext(fiber.stack + kStackBytes, kStackBytes, enter);
  fiber.tsan = tsan_create();
}

Fiber* make_fiber() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  auto* fiber = new Fiber{.stack = static_cast<char*>(memory) + kGuardBytes};
  prepare(*fiber);
  return fiber;
}

std::deque<Fiber*>& idle() {
  static auto& pool = *new std::deque<Fiber*>;
  return pool;
}

}  // namespace

/// The fiber used last, whose stack is in the cache. Under ThreadSanitizer the least recently used
/// of many, because it reports no race between two threads that ran on one fiber.
Fiber* take_fiber(void (*body)()) {
  constexpr std::size_t kReserve = 512;
  static std::size_t made = 0;
  Fiber* fiber = nullptr;
  if (idle().empty() || (kThreadSanitizer && made < kReserve)) {
    fiber = make_fiber();
    ++made;
  } else if (kThreadSanitizer) {
    fiber = idle().front();
    idle().pop_front();
  } else {
    fiber = idle().back();
    idle().pop_back();
  }
  fiber->body = body;
  return fiber;
}

void give_back(Fiber* fiber) { idle().push_back(fiber); }

void abandon(Fiber* fiber, void* order) {
  tsan_switch(fiber->tsan);
  release(order);
  tsan_switch(host.tsan);
  // For ThreadSanitizer this fiber is still inside its body, so its handle is not used again.
  tsan_destroy(fiber->tsan);
  prepare(*fiber);
  give_back(fiber);
}

void resume(Fiber* fiber) {
  host.tsan = tsan_current();
  current = fiber;
  before_switch(&host.fake_stack, fiber->stack, kStackBytes);
  tsan_switch(fiber->tsan);
  fiber->context = jump_fcontext(fiber->context, nullptr).fctx;
  after_switch(host.fake_stack, nullptr, nullptr);
}

void suspend() {
  Fiber& self = *current;
  before_switch(&self.fake_stack, host.stack, host.stack_bytes);
  tsan_switch(host.tsan);
  host.context = jump_fcontext(host.context, nullptr).fctx;
  after_switch(self.fake_stack, &host.stack, &host.stack_bytes);
}

}  // namespace emulation
