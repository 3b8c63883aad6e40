// A device that does nothing: what is left is the host, for benchmarks.
#pragma once

#include "copy_device.h"

namespace fpdt {

class NullDevice : public CopyDevice {
 public:
  void Wait(int, int, uint32_t) override {}
  void Copy(int, const CopyPiece*, std::size_t) override {}
  void Write(int, uint32_t) override {}
  bool WaitOn(int64_t, int, uint32_t) override { return true; }
  void WriteOn(int64_t, int, uint32_t) override {}
  void Release(const std::vector<uint32_t>&, const std::vector<int64_t>&) override {}
  void Finish(uint32_t, const std::vector<uint32_t>&) override {}
};

}  // namespace fpdt
