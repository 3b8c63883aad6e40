// Positions of streams that one thread reaches and others wait for, on the host.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace fpdt {

class Counters {
 public:
  explicit Counters(int32_t num_streams);

  // Sleeps until `position` of `stream` is reached.
  void Await(int stream, uint32_t position);
  // Never back: a thread may be late with a position that another has passed for it.
  void Advance(int stream, uint32_t position);

 private:
  // One a cache line.
  struct alignas(64) Counter {
    std::atomic<uint32_t> position{0};
  };

  std::vector<std::unique_ptr<Counter>> counters_;
  std::mutex mutex_;
  std::condition_variable advanced_;
  std::atomic<int> num_sleeping_{0};
};

}  // namespace fpdt
