#pragma once

#include <functional>
#include <string>

namespace carousel::test {

/// Passes on what is left of a text when it is cut at any place, and the text with one byte inserted
/// or replaced at any place by one that means something: a tab, a newline, a part of UTF-8.
inline void for_each_damage(const std::string& good,
                            const std::function<void(const std::string&)>& examine) {
  for (std::size_t i = 0; i <= good.size(); ++i) {
    examine(good.substr(0, i));
    examine(good.substr(i));
    for (const char byte : {'\t', '\n', '\0', ' ', '\xFF', '\xC3', '\x80', '\r'}) {
      std::string damaged = good;
      damaged.insert(i, 1, byte);
      examine(damaged);
      if (i < good.size()) {
        damaged = good;
        damaged[i] = byte;
        examine(damaged);
      }
    }
  }
}

}  // namespace carousel::test
