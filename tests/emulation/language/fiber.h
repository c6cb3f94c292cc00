#pragma once

namespace emulation {

/// A coroutine with its own stack on the calling OS thread, from a pool.
struct Fiber;

/// A fiber that, at its first resume(), calls `body`. The body returns when it is done; the fiber
/// then goes back to the pool with give_back().
Fiber* take_fiber(void (*body)());
void give_back(Fiber* fiber);

/// Takes back a fiber that is suspended and will not be resumed. What its body did happens before
/// the next acquire of `order`.
void abandon(Fiber* fiber, void* order);

/// From the host: runs the fiber until it suspends or its body returns.
void resume(Fiber* fiber);

/// From a fiber: back to the host.
void suspend();

}  // namespace emulation
