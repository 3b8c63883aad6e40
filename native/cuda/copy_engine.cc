#include "copy_engine.h"

#include <time.h>

#include <algorithm>
#include <utility>

namespace fpdt {

namespace {

constexpr std::size_t kMostBatched = 64;

bool Overlap(const char* a, std::size_t a_bytes, const char* b, std::size_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

// The order of a batch is the device's: no piece may touch what another writes.
bool Conflict(const CopyPiece& a, const CopyPiece& b) {
  return Overlap(a.dst, a.bytes, b.dst, b.bytes) || Overlap(a.dst, a.bytes, b.src, b.bytes) || Overlap(a.src, a.bytes, b.dst, b.bytes);
}

uint32_t Wrapped(uint64_t position) { return static_cast<uint32_t>(position); }

std::vector<uint32_t> Wrapped(const std::vector<uint64_t>& positions) {
  std::vector<uint32_t> found;
  for (const uint64_t position : positions) found.push_back(Wrapped(position));
  return found;
}

uint64_t CpuNanosecondsOf(std::thread& thread) {
  clockid_t clock{};
  timespec now{};
  if (pthread_getcpuclockid(thread.native_handle(), &clock) != 0 || clock_gettime(clock, &now) != 0) return 0;
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

CopyEngine::CopyEngine(std::unique_ptr<CopyDevice> device, std::vector<Arena> arenas, int32_t num_streams, uint32_t owned)
    : device_(std::move(device)), arenas_(std::move(arenas)), num_streams_(num_streams), owned_(owned) {
  if (num_streams < 1 || num_streams > kMostStreams || owned >> num_streams != 0)
    throw std::invalid_argument("expected 1 to " + std::to_string(kMostStreams) + " streams and queues among them");
  queued_.assign(static_cast<std::size_t>(num_streams), 0);
  for (int stream = 0; stream < num_streams; stream++) {
    if ((owned >> stream & 1) == 0) continue;
    queues_.push_back(std::make_unique<Queue>());
    queues_.back()->stream = stream;
    queues_.back()->seen = queued_;
  }
  for (auto& queue : queues_) queue->thread = std::thread([this, &queue = *queue] { Serve(queue); });
}

CopyEngine::~CopyEngine() {
  Fail("the engine was closed");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    is_stopping_ = true;
    for (auto& queue : queues_) queue->changed.notify_one();
  }
  for (auto& queue : queues_) queue->thread.join();
}

int32_t CopyEngine::Load(const ProgramRows& rows) {
  auto program = ReadProgram(rows, num_streams_, owned_, static_cast<int32_t>(arenas_.size()));
  std::lock_guard<std::mutex> lock(mutex_);
  programs_.push_back(std::move(program));
  hidden_.emplace_back();
  return static_cast<int32_t>(programs_.size()) - 1;
}

void CopyEngine::Hide(int32_t program, Hidden hidden) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto& found = programs_.at(static_cast<std::size_t>(program));
  if (hidden.size() != static_cast<std::size_t>(found->num_hidden_bits)) throw std::invalid_argument("expected a byte for each op");
  const bool any = std::any_of(hidden.begin(), hidden.end(), [](uint8_t is_hidden) { return is_hidden != 0; });
  hidden_[static_cast<std::size_t>(program)] = any ? std::make_shared<const Hidden>(std::move(hidden)) : nullptr;
}

void CopyEngine::Run(int32_t program, const int64_t* args, std::size_t num_args, const uint32_t* masks, uint32_t* bases) {
  auto call = std::make_shared<Submission>();
  call->args.assign(args, args + num_args);
  call->masks.assign(masks, masks + num_streams_);
  std::lock_guard<std::mutex> lock(mutex_);
  if (has_failed_) throw EngineError(reason_);
  call->program = programs_.at(static_cast<std::size_t>(program));
  call->hidden = hidden_[static_cast<std::size_t>(program)];
  if (num_args != static_cast<std::size_t>(call->program->num_params))
    throw std::invalid_argument("program " + std::to_string(program) + " has " + std::to_string(call->program->num_params) +
                                " parameters, the call " + std::to_string(num_args) + " arguments");
  call->bases = queued_;
  std::transform(queued_.begin(), queued_.end(), bases, [](uint64_t position) { return Wrapped(position); });
  for (std::size_t s = 0; s < queued_.size(); s++) queued_[s] += call->program->num_ops[s];
  for (auto& queue : queues_) {
    if (call->program->queues[static_cast<std::size_t>(queue->stream)].empty()) continue;
    queue->pending.push_back(call);
    if (queue->pending.size() == 1) queue->changed.notify_one();
  }
}

void CopyEngine::WaitOn(int64_t handle, int32_t stream, uint32_t position) {
  CheckStream(stream);
  device_->AwaitLaunched(stream, position);
  CheckSound();
  if (!device_->WaitOn(handle, stream, position)) CheckSound();
}

void CopyEngine::WriteOn(int64_t handle, int32_t stream, uint32_t position) {
  CheckStream(stream);
  CheckSound();
  device_->WriteOn(handle, stream, position);
}

void CopyEngine::Join() {
  AwaitIdle();
  CheckSound();
}

void CopyEngine::Fail(const std::string& reason) {
  std::vector<uint32_t> queued;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (has_failed_) return;
    reason_ = reason;
    has_failed_ = true;
    queued = Wrapped(queued_);
  }
  device_->Release(queued, {});
}

void CopyEngine::Reset(const std::vector<int64_t>& handles) {
  Fail("what was queued is forgotten");
  std::unique_lock<std::mutex> lock(mutex_);
  const auto queued = Wrapped(queued_);
  lock.unlock();
  device_->Release(queued, handles);
  AwaitIdle();
  device_->Finish(owned_, queued);
  lock.lock();
  reason_.clear();
  has_failed_ = false;
}

void CopyEngine::AwaitIdle() {
  std::unique_lock<std::mutex> lock(mutex_);
  idle_.wait(lock, [this] { return std::all_of(queues_.begin(), queues_.end(), [](const auto& queue) { return queue->pending.empty(); }); });
}

QueueStats CopyEngine::StatsOf(int32_t stream) {
  for (auto& queue : queues_)
    if (queue->stream == stream) return {queue->ops, queue->pieces, queue->batches, queue->bytes, CpuNanosecondsOf(queue->thread)};
  throw std::invalid_argument("stream " + std::to_string(stream) + " has no queue");
}

void CopyEngine::Serve(Queue& queue) {
  for (;;) {
    std::shared_ptr<const Submission> call;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      queue.changed.wait(lock, [&] { return !queue.pending.empty() || is_stopping_; });
      if (queue.pending.empty()) return;
      call = queue.pending.front();
    }
    try {
      RunOn(queue, *call);
    } catch (const std::exception& error) {
      Fail(error.what());
    }
    std::lock_guard<std::mutex> lock(mutex_);
    queue.pending.pop_front();
    if (queue.pending.empty()) idle_.notify_all();
  }
}

// After a failure nothing is copied; where it comes in the middle of a call, counters come to their ends by Release.
void CopyEngine::RunOn(Queue& queue, const Submission& call) {
  const CopyProgram& program = *call.program;
  const auto own = static_cast<std::size_t>(queue.stream);
  queue.batch.clear();
  for (uint32_t mask = call.masks[own] & ~(1u << own), stream = 0; mask != 0; mask >>= 1, stream++)
    if (mask & 1) WaitFor(queue, static_cast<int>(stream), call.bases[stream]);
  for (const ProgramOp& op : program.queues[own]) {
    if (has_failed_.load(std::memory_order_relaxed)) return;
    for (uint32_t i = op.first_wait; i < op.end_wait; i++) {
      const ProgramWait& wait = program.waits[i];
      WaitFor(queue, wait.stream, call.bases[static_cast<std::size_t>(wait.stream)] + wait.position);
    }
    // A wait may have ended because of a failure.
    if (has_failed_.load(std::memory_order_relaxed)) return;
    const bool is_hidden = call.hidden != nullptr && (*call.hidden)[static_cast<std::size_t>(op.hidden_bit)] != 0;
    for (uint32_t i = op.first_piece; !is_hidden && i < op.end_piece; i++) Add(queue, Resolve(program.pieces[i], call.args.data(), arenas_));
    queue.ops.fetch_add(1, std::memory_order_relaxed);
    if (!op.signals) continue;
    Flush(queue);
    device_->Write(queue.stream, Wrapped(call.bases[own] + op.position));
  }
  Flush(queue);
}

void CopyEngine::WaitFor(Queue& queue, int stream, uint64_t position) {
  uint64_t& seen = queue.seen[static_cast<std::size_t>(stream)];
  if (seen >= position) return;
  Flush(queue);
  device_->AwaitLaunched(stream, Wrapped(position));
  // After a failure the position may never be given to the device.
  if (has_failed_) return;
  device_->Wait(queue.stream, stream, Wrapped(position));
  seen = position;
}

void CopyEngine::Add(Queue& queue, const CopyPiece& piece) {
  const bool fits = queue.batch.size() < kMostBatched &&
                    std::none_of(queue.batch.begin(), queue.batch.end(), [&](const CopyPiece& other) { return Conflict(piece, other); });
  if (!fits) Flush(queue);
  queue.batch.push_back(piece);
}

void CopyEngine::Flush(Queue& queue) {
  if (queue.batch.empty()) return;
  device_->Copy(queue.stream, queue.batch.data(), queue.batch.size());
  uint64_t bytes = 0;
  for (const CopyPiece& piece : queue.batch) bytes += piece.bytes;
  queue.bytes.fetch_add(bytes, std::memory_order_relaxed);
  queue.pieces.fetch_add(queue.batch.size(), std::memory_order_relaxed);
  queue.batches.fetch_add(1, std::memory_order_relaxed);
  queue.batch.clear();
}

void CopyEngine::CheckStream(int32_t stream) const {
  if (stream < 0 || stream >= num_streams_) throw std::invalid_argument("there is no stream " + std::to_string(stream));
}

void CopyEngine::CheckSound() {
  if (!has_failed_) return;
  std::lock_guard<std::mutex> lock(mutex_);
  throw EngineError(reason_);
}

}  // namespace fpdt
