#include "thread_device.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <thread>

namespace fpdt {

ThreadDevice::ThreadDevice(int32_t num_streams, const ThreadDeviceOptions& options) : options_(options), counters_(num_streams) {
  for (int32_t stream = 0; stream < num_streams; stream++) {
    streams_.push_back(std::make_unique<Stream>());
    streams_.back()->random.seed(options.seed * static_cast<uint64_t>(kMostStreams) + static_cast<uint64_t>(stream));
  }
}

void ThreadDevice::Wait(int queue, int stream, uint32_t position) {
  MaybeSleep(*streams_[static_cast<std::size_t>(queue)]);
  counters_.Await(stream, position);
}

// In any order, as a batch of the driver's.
void ThreadDevice::Copy(int queue, const CopyPiece* pieces, std::size_t num_pieces) {
  Stream& own = *streams_[static_cast<std::size_t>(queue)];
  MaybeSleep(own);
  if (!options_.moves) return;
  own.order.resize(num_pieces);
  std::iota(own.order.begin(), own.order.end(), std::size_t{0});
  if (options_.probability > 0) std::shuffle(own.order.begin(), own.order.end(), own.random);
  for (const std::size_t i : own.order) std::memcpy(pieces[i].dst, pieces[i].src, pieces[i].bytes);
}

void ThreadDevice::Write(int queue, uint32_t position) {
  MaybeSleep(*streams_[static_cast<std::size_t>(queue)]);
  counters_.Advance(queue, position);
}

// Positions are left by Release too: whoever waited looks for a failure.
bool ThreadDevice::WaitOn(int64_t, int stream, uint32_t position) {
  counters_.Await(stream, position);
  return false;
}

void ThreadDevice::WriteOn(int64_t, int stream, uint32_t position) { counters_.Advance(stream, position); }

void ThreadDevice::Release(const std::vector<uint32_t>& positions, const std::vector<int64_t>&) {
  for (std::size_t stream = 0; stream < streams_.size(); stream++) counters_.Advance(static_cast<int>(stream), positions[stream]);
}

// The threads have done what they took from their queues.
void ThreadDevice::Finish(uint32_t, const std::vector<uint32_t>&) {}

void ThreadDevice::MaybeSleep(Stream& own) {
  if (options_.probability <= 0) return;
  if (std::uniform_real_distribution<double>(0, 1)(own.random) >= options_.probability) return;
  const auto microseconds = std::uniform_int_distribution<uint32_t>(0, options_.most_microseconds)(own.random);
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

}  // namespace fpdt
