// What c10d's headers name of Gloo, which a libtorch installation has no headers of. It is only held behind pointers.
#pragma once

#include <chrono>

namespace gloo {

class Context {
public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {

class UnboundBuffer;

} // namespace transport
} // namespace gloo
