#pragma once

#include <rapidcheck/gtest.h>

#include <cstdlib>

namespace carousel::test {

/// Property tests draw the same cases in every run, as all tests do; RC_PARAMS in the environment
/// (e.g. "seed=7 max_success=10000") overrides that.
inline const bool kPropertiesAreSeeded = setenv("RC_PARAMS", "seed=20260101", 0) == 0;

}  // namespace carousel::test
