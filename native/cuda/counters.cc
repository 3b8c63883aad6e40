#include "counters.h"

#include "copy_device.h"

namespace fpdt {

Counters::Counters(int32_t num_streams) {
  for (int32_t stream = 0; stream < num_streams; stream++) counters_.push_back(std::make_unique<Counter>());
}

void Counters::Await(int stream, uint32_t position) {
  std::atomic<uint32_t>& counter = counters_[static_cast<std::size_t>(stream)]->position;
  if (IsReached(counter.load(std::memory_order_acquire), position)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  // Before the counter is read again: whoever advances it later sees that somebody sleeps.
  num_sleeping_.fetch_add(1);
  advanced_.wait(lock, [&] { return IsReached(counter.load(), position); });
  num_sleeping_.fetch_sub(1);
}

void Counters::Advance(int stream, uint32_t position) {
  std::atomic<uint32_t>& counter = counters_[static_cast<std::size_t>(stream)]->position;
  uint32_t found = counter.load();
  while (!IsReached(found, position) && !counter.compare_exchange_weak(found, position)) {
  }
  if (num_sleeping_.load() == 0) return;
  std::lock_guard<std::mutex> lock(mutex_);
  advanced_.notify_all();
}

}  // namespace fpdt
