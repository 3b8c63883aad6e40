// What the engine needs of a device: queues of copies that wait for, and advance, one counter a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "copy_program.h"

namespace fpdt {

// A device that refuses a call; the text says which.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A counter holds the last position of its stream that is reached. Positions grow for ever and wrap: one is reached when the counter
// is the same or up to 2^31 - 1 later.
inline bool IsReached(uint32_t counter, uint32_t position) { return static_cast<int32_t>(counter - position) >= 0; }

// The handle of a stream that is no device's: what is on it has been done when it is said.
constexpr int64_t kHost = -1;

class CopyDevice {
 public:
  virtual ~CopyDevice() = default;

  // The host waits until `position` of `stream` was given to the device, or Release has passed it; it comes before each wait. A device
  // whose queues are its own threads needs none of it.
  virtual void AwaitLaunched(int stream, uint32_t position) { (void)stream, (void)position; }

  // The first three are called by the thread of a queue alone, in the order of the queue. They may return before anything is done.

  // What the queue is given next comes after `position` of `stream`, whoever reaches it.
  virtual void Wait(int queue, int stream, uint32_t position) = 0;
  // Pieces of which none reads or writes what another writes: their order is the device's to choose.
  virtual void Copy(int queue, const CopyPiece* pieces, std::size_t num_pieces) = 0;
  // The queue's own counter, once all before it is done.
  virtual void Write(int queue, uint32_t position) = 0;

  // The same for a stream that is not a queue of the engine's: `handle` is the device's own name of it, where it has one, or kHost, for
  // which the caller waits. A wait returns false when it may have ended because of Release.
  virtual bool WaitOn(int64_t handle, int stream, uint32_t position) = 0;
  virtual void WriteOn(int64_t handle, int stream, uint32_t position) = 0;

  // Frees every waiter, now and later: all counters come to `positions`. What is queued ends by itself. `handles`: of each stream.
  virtual void Release(const std::vector<uint32_t>& positions, const std::vector<int64_t>& handles) = 0;
  // The host waits until the queues in the mask `owned` are done with all that they were given.
  virtual void Finish(uint32_t owned, const std::vector<uint32_t>& positions) = 0;
};

}  // namespace fpdt
