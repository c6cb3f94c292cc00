#pragma once

#include <string>
#include <string_view>

namespace carousel {

/// Takes descriptors 0 to 2 where the process was started without them, so that no file that it
/// opens becomes standard error; and has writes to pipes without a reader and beyond a limit fail
/// instead of ending the process. To call first of all.
void prepare_standard_streams();

/// Writes to standard error, on a terminal wrapped to its width. What cannot be written there is
/// dropped: talk is no reason to fail.
void talk(std::string_view text) noexcept;
/// The same as it is: a model's text, a command to copy, a line that is redrawn.
void talk_verbatim(std::string_view text) noexcept;

/// Writes to standard output what people read: on a terminal wrapped to its width.
void print(std::string_view text);

/// Writes to standard output at once, as a text shows that comes word by word. std::system_error if
/// it cannot be written.
void write_output(std::string_view text);

/// Writes what is buffered. Returns what keeps, or kept, standard output from being written, or
/// nothing. A reader that went away
/// (`carousel generate … | head`) is nothing to talk about: the process ends by SIGPIPE.
std::string output_fault();

}  // namespace carousel
