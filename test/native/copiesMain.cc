// Replays plans on the copy engine under -fsanitize=thread: the engine's copies for real, every other op as reads and writes of all
// bytes of its views, on a thread for each stream that Python or a file would run. A wait that is missing is a race.
//
//   copiesMain DEVICE SEED < PLAN      DEVICE: threads, as runs have it; exact, where a wait orders nothing but what it names
//
// PLAN is what python -m fpdt.testing.copy_replay prints: whitespace between all numbers, in the order in which they are read here.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

#include "../../native/cuda/copy_engine.h"
#include "../../native/cuda/thread_device.h"

namespace {

using namespace fpdt;

// A flag for each position of each stream: who sees it knows of that op and those before it, and of nothing that came later. Nothing
// else orders two threads: no lock, no condition.
class ExactDevice : public CopyDevice {
 public:
  explicit ExactDevice(const std::vector<uint32_t>& ends) {
    for (const uint32_t end : ends) flags_.push_back(std::vector<std::atomic<bool>>(end + 1));
    for (auto& stream : flags_) stream[0].store(true);
  }
  void Wait(int, int stream, uint32_t position) override {
    const auto& flag = flags_[static_cast<std::size_t>(stream)].at(position);
    while (!flag.load(std::memory_order_acquire)) std::this_thread::yield();
  }
  void Copy(int, const CopyPiece* pieces, std::size_t num_pieces) override {
    for (std::size_t i = num_pieces; i-- > 0;) std::memcpy(pieces[i].dst, pieces[i].src, pieces[i].bytes);
  }
  void Write(int queue, uint32_t position) override {
    flags_[static_cast<std::size_t>(queue)].at(position).store(true, std::memory_order_release);
  }
  bool WaitOn(int64_t, int stream, uint32_t position) override { return Wait(0, stream, position), true; }
  void WriteOn(int64_t, int stream, uint32_t position) override { Write(stream, position); }
  void Release(const std::vector<uint32_t>&, const std::vector<int64_t>&) override {}
  void Finish(uint32_t, const std::vector<uint32_t>&) override {}

 private:
  std::vector<std::vector<std::atomic<bool>>> flags_;
};

// Bytes that an op of another stream reads (0), writes (1) or accumulates into (2).
struct HostView {
  int mode;
  Place place;
  int64_t bytes;
};

struct HostOp {
  int32_t stream;
  uint32_t position;
  std::vector<ProgramWait> waits;
  std::vector<HostView> views;
};

struct Section {
  std::vector<int64_t> header, ops, waits, pieces;
  std::vector<HostOp> host_ops;
};

struct Call {
  std::size_t section;
  std::vector<int64_t> args;
  std::vector<uint32_t> masks, bases;
};

struct Plan {
  int32_t num_streams = 0;
  uint32_t owned = 0;
  std::vector<std::vector<char>> memory;
  std::vector<Arena> arenas;
  std::vector<Section> sections;
  std::vector<Call> calls;
};

int64_t Next() {
  int64_t number = 0;
  if (!(std::cin >> number)) throw std::invalid_argument("the plan ends too early");
  return number;
}

std::size_t NextSize() { return static_cast<std::size_t>(Next()); }

std::vector<int64_t> NextRows(std::size_t count, int fields) {
  std::vector<int64_t> rows(count * static_cast<std::size_t>(fields));
  for (int64_t& number : rows) number = Next();
  return rows;
}

HostOp NextHostOp() {
  HostOp op{static_cast<int32_t>(Next()), static_cast<uint32_t>(Next()), {}, {}};
  op.waits.resize(NextSize());
  op.views.resize(NextSize());
  for (ProgramWait& wait : op.waits) wait = {static_cast<int32_t>(Next()), static_cast<uint32_t>(Next())};
  for (HostView& view : op.views) {
    view.mode = static_cast<int>(Next());
    view.bytes = Next();
    view.place = {static_cast<int32_t>(Next()), static_cast<int32_t>(Next()), Next(), Next()};
  }
  return op;
}

// Arguments of a braced list are evaluated from left to right.
Section NextSection(int32_t num_streams) {
  Section section;
  section.header = NextRows(1, 1 + num_streams);
  const std::size_t num_ops = NextSize(), num_waits = NextSize(), num_pieces = NextSize(), num_host_ops = NextSize();
  section.ops = NextRows(num_ops, kOpFields);
  section.waits = NextRows(num_waits, kWaitFields);
  section.pieces = NextRows(num_pieces, kPieceFields);
  for (std::size_t i = 0; i < num_host_ops; i++) section.host_ops.push_back(NextHostOp());
  return section;
}

Plan ReadPlan() {
  Plan plan;
  plan.num_streams = static_cast<int32_t>(Next());
  plan.owned = static_cast<uint32_t>(Next());
  const std::size_t num_arenas = NextSize(), num_sections = NextSize(), num_calls = NextSize();
  for (std::size_t i = 0; i < num_arenas; i++) plan.memory.emplace_back(NextSize());
  for (auto& memory : plan.memory) plan.arenas.push_back({memory.data(), static_cast<int64_t>(memory.size())});
  for (std::size_t i = 0; i < num_sections; i++) plan.sections.push_back(NextSection(plan.num_streams));
  for (std::size_t i = 0; i < num_calls; i++) {
    Call call{NextSize(), {}, {}, {}};
    call.args = NextRows(NextSize(), 1);
    for (int32_t s = 0; s < plan.num_streams; s++) call.masks.push_back(static_cast<uint32_t>(Next()));
    call.bases.resize(static_cast<std::size_t>(plan.num_streams));
    plan.calls.push_back(std::move(call));
  }
  return plan;
}

// All bytes, by plain loads and stores of which the sanitizer sees each.
void Touch(const HostView& view, const Call& call, const std::vector<Arena>& arenas, unsigned char& sum) {
  const CopyPiece piece = Resolve({view.place, view.place, view.bytes}, call.args.data(), arenas);
  for (std::size_t i = 0; i < piece.bytes; i++) {
    if (view.mode != 1) sum = static_cast<unsigned char>(sum + static_cast<unsigned char>(piece.dst[i]));
    if (view.mode != 0) piece.dst[i] = static_cast<char>(sum + i);
  }
}

// One stream that is not the engine's, all calls of it.
void RunStream(const Plan& plan, CopyEngine& engine, int32_t stream) {
  const auto own = static_cast<std::size_t>(stream);
  unsigned char sum = 0;
  for (const Call& call : plan.calls) {
    bool is_first = true;
    for (const HostOp& op : plan.sections[call.section].host_ops) {
      if (op.stream != stream) continue;
      for (uint32_t other = 0; is_first && other < call.masks.size(); other++)
        if ((call.masks[own] >> other & 1) != 0 && other != own) engine.WaitOn(0, static_cast<int32_t>(other), call.bases[other]);
      is_first = false;
      for (const ProgramWait& wait : op.waits) engine.WaitOn(0, wait.stream, call.bases[static_cast<std::size_t>(wait.stream)] + wait.position);
      for (const HostView& view : op.views) Touch(view, call, plan.arenas, sum);
      engine.WriteOn(0, stream, call.bases[own] + op.position);
    }
  }
}

int Replay(const std::string& device_name, uint64_t seed) {
  Plan plan = ReadPlan();
  std::vector<uint32_t> ends(static_cast<std::size_t>(plan.num_streams), 0);
  for (const Call& call : plan.calls)
    for (std::size_t s = 0; s < ends.size(); s++) ends[s] += static_cast<uint32_t>(plan.sections[call.section].header[1 + s]);
  std::unique_ptr<CopyDevice> device;
  if (device_name == "exact") device = std::make_unique<ExactDevice>(ends);
  if (device_name == "threads") device = std::make_unique<ThreadDevice>(plan.num_streams, ThreadDeviceOptions{seed, 0.05, 200, true});
  if (device == nullptr) throw std::invalid_argument("there is no device " + device_name);
  CopyEngine engine(std::move(device), plan.arenas, plan.num_streams, plan.owned);
  for (const Section& section : plan.sections) {
    engine.Load({section.header.data(), section.ops.data(), section.ops.size() / kOpFields, section.waits.data(),
                 section.waits.size() / kWaitFields, section.pieces.data(), section.pieces.size() / kPieceFields});
  }
  // All copies of the program come before any of the work they wait for: publishing orders nothing but itself.
  for (Call& call : plan.calls)
    engine.Run(static_cast<int32_t>(call.section), call.args.data(), call.args.size(), call.masks.data(), call.bases.data());
  std::vector<std::thread> streams;
  for (int32_t s = 0; s < plan.num_streams; s++)
    if ((plan.owned >> s & 1) == 0) streams.emplace_back([&plan, &engine, s] { RunStream(plan, engine, s); });
  for (std::thread& stream : streams) stream.join();
  engine.Join();
  uint64_t pieces = 0, batches = 0, bytes = 0;
  for (int32_t s = 0; s < plan.num_streams; s++) {
    if ((plan.owned >> s & 1) == 0) continue;
    const QueueStats stats = engine.StatsOf(s);
    pieces += stats.pieces, batches += stats.batches, bytes += stats.bytes;
  }
  std::cout << "{\"calls\":" << plan.calls.size() << ",\"copies\":" << pieces << ",\"batches\":" << batches << ",\"bytes\":" << bytes << "}\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw std::invalid_argument("expected a device and a seed");
    return Replay(argv[1], std::stoull(argv[2]));
  } catch (const std::exception& error) {
    std::cerr << "copiesMain: " << error.what() << "\n";
    return 1;
  }
}
