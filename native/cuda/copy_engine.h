// Queues of copies, a thread each: a call's copies are queued at once, before the work they wait for is launched.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "copy_device.h"
#include "copy_program.h"

namespace fpdt {

// The engine refuses work, since something failed; the text is of what failed first.
class EngineError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Of one queue, since the engine was made. `cpu_nanoseconds` is the time of its thread.
struct QueueStats {
  uint64_t ops, pieces, batches, bytes, cpu_nanoseconds;
};

using Hidden = std::vector<uint8_t>;

class CopyEngine {
 public:
  // `owned`: a bit for each stream whose copies the engine launches. Throws std::invalid_argument.
  CopyEngine(std::unique_ptr<CopyDevice> device, std::vector<Arena> arenas, int32_t num_streams, uint32_t owned);
  // Whoever still waits is freed; copies that have not begun are left out.
  ~CopyEngine();
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  // Returns the number that Run and Hide know it by.
  int32_t Load(const ProgramRows& rows);
  // Ops that do nothing from the next call on: `hidden` has a byte for each op of the program's rows, 0 or 1. They reach their positions.
  void Hide(int32_t program, Hidden hidden);

  // Queues the copies of a call, and returns at once. `masks[s]`: bit t is set where the first op of stream s waits for all that was
  // queued on t before. `bases[s]` is set to the last position of stream s before the call. Calls come from one thread.
  void Run(int32_t program, const int64_t* args, std::size_t num_args, const uint32_t* masks, uint32_t* bases);

  // For ops that others launch; see CopyDevice. They throw EngineError after a failure.
  void WaitOn(int64_t handle, int32_t stream, uint32_t position);
  void WriteOn(int64_t handle, int32_t stream, uint32_t position);

  // All copies queued so far were given to the device: on the CPU twin they are done. Throws EngineError.
  void Join();
  // Nobody waits any longer; Run, WaitOn, WriteOn and Join throw from now on, until Reset. From any thread.
  void Fail(const std::string& reason);
  // Forgets copies that have not begun, and what failed; waits for those that have. Every counter is then where it would have come.
  void Reset(const std::vector<int64_t>& handles);

  QueueStats StatsOf(int32_t stream);
  int32_t num_streams() const { return num_streams_; }

 private:
  struct Submission {
    std::shared_ptr<const CopyProgram> program;
    std::shared_ptr<const Hidden> hidden;
    std::vector<int64_t> args;
    std::vector<uint32_t> masks;
    std::vector<uint64_t> bases;
  };
  // `seen`: positions that the queue has waited for, which do not wrap here; its own thread alone knows them.
  struct Queue {
    int stream = 0;
    std::deque<std::shared_ptr<const Submission>> pending;
    std::condition_variable changed;
    std::vector<uint64_t> seen;
    std::vector<CopyPiece> batch;
    std::atomic<uint64_t> ops{0}, pieces{0}, batches{0}, bytes{0};
    std::thread thread;
  };

  void Serve(Queue& queue);
  void RunOn(Queue& queue, const Submission& call);
  void WaitFor(Queue& queue, int stream, uint64_t position);
  void Add(Queue& queue, const CopyPiece& piece);
  void Flush(Queue& queue);
  void AwaitIdle();
  void CheckStream(int32_t stream) const;
  void CheckSound();

  const std::unique_ptr<CopyDevice> device_;
  const std::vector<Arena> arenas_;
  const int32_t num_streams_;
  const uint32_t owned_;
  std::vector<std::unique_ptr<Queue>> queues_;

  // Guards all below, and what is pending.
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<std::shared_ptr<const CopyProgram>> programs_;
  std::vector<std::shared_ptr<const Hidden>> hidden_;
  // The last position of each stream; devices get the lower 32 bits.
  std::vector<uint64_t> queued_;
  std::string reason_;
  bool is_stopping_ = false;
  std::atomic<bool> has_failed_{false};
};

}  // namespace fpdt
