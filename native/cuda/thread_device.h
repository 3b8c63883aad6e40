// The CPU twin: what a queue is given is done at once by its thread, which waits for other threads. Races in it are real.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "copy_device.h"
#include "counters.h"

namespace fpdt {

// Threads sleep before a wait, a copy or a write, with `probability`, up to `most_microseconds`: an order of the copies drawn from
// `seed` and from the machine. `moves`: false leaves out the copies themselves, for benchmarks.
struct ThreadDeviceOptions {
  uint64_t seed = 0;
  double probability = 0;
  uint32_t most_microseconds = 0;
  bool moves = true;
};

class ThreadDevice : public CopyDevice {
 public:
  ThreadDevice(int32_t num_streams, const ThreadDeviceOptions& options);

  void Wait(int queue, int stream, uint32_t position) override;
  void Copy(int queue, const CopyPiece* pieces, std::size_t num_pieces) override;
  void Write(int queue, uint32_t position) override;
  bool WaitOn(int64_t handle, int stream, uint32_t position) override;
  void WriteOn(int64_t handle, int stream, uint32_t position) override;
  void Release(const std::vector<uint32_t>& positions, const std::vector<int64_t>& handles) override;
  void Finish(uint32_t owned, const std::vector<uint32_t>& positions) override;

 private:
  // One a stream: its own thread draws from it alone.
  struct alignas(64) Stream {
    std::mt19937_64 random;
    std::vector<std::size_t> order;
  };

  void MaybeSleep(Stream& own);

  const ThreadDeviceOptions options_;
  std::vector<std::unique_ptr<Stream>> streams_;
  Counters counters_;
};

}  // namespace fpdt
