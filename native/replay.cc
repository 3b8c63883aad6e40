#include "replay.h"

#include <array>
#include <utility>

namespace fpdt {

namespace {

// Ops between two looks at whether the caller still wants the result: well under a millisecond.
constexpr int32_t kOpsBetweenLooks = 4096;

// The number of streams where the compiler knows it, as it does for the plans there are: loops over streams are the innermost ones.
template <int32_t kStreams>
struct Count {
  static_assert(kStreams > 0);
  explicit Count(int32_t) {}
  constexpr operator int32_t() const { return kStreams; }
};
template <>
struct Count<0> {
  explicit Count(int32_t found) : value(found) {}
  operator int32_t() const { return value; }
  int32_t value;
};

// A number a stream.
template <int32_t kStreams>
using Row = std::array<int32_t, kStreams == 0 ? kMostStreams : kStreams>;

// What is surely complete when each op starts, as src/address/clocks.ts finds it. Row-major, a row an op, a column a stream.
template <int32_t kStreams>
class Clocks {
 public:
  explicit Clocks(const ReplayColumns& columns)
      : columns_(columns),
        num_streams_(columns.num_streams),
        clocks_(columns.streams.size() * static_cast<std::size_t>(columns.num_streams)),
        latest_(static_cast<std::size_t>(columns.num_streams), -1) {}

  // What the next op knows, which is number `id`.
  Row<kStreams> Next(int32_t id) {
    Row<kStreams> row;
    row.fill(-1);
    const uint8_t stream = columns_.streams[id];
    Learn(latest_[stream], row);
    for (int32_t w = columns_.wait_offsets[id]; w < columns_.wait_offsets[id + 1]; w++) Learn(columns_.waits[w], row);
    latest_[stream] = id;
    int32_t* kept = Of(id);
    for (int32_t t = 0; t < num_streams_; t++) kept[t] = row[t];
    return row;
  }

  int32_t* Of(int32_t id) { return clocks_.data() + static_cast<std::size_t>(id) * num_streams_; }
  int32_t Latest(int32_t stream) const { return latest_[stream]; }

 private:
  // Whole rows at once, the place of the op's own stream too: a number stored alone, then read with its row, is waited for.
  void Learn(int32_t done, Row<kStreams>& row) {
    if (done < 0) return;
    const int32_t* known = Of(done);
    const int32_t own = columns_.streams[done];
    for (int32_t t = 0; t < num_streams_; t++) {
      const int32_t learnt = t == own ? done : known[t];
      row[t] = learnt > row[t] ? learnt : row[t];
    }
  }

  const ReplayColumns& columns_;
  const Count<kStreams> num_streams_;
  std::vector<int32_t> clocks_;
  std::vector<int32_t> latest_;
};

template <int32_t kStreams>
class CallReplay {
 public:
  explicit CallReplay(const ReplayColumns& columns)
      : columns_(columns), n_(columns.num_streams), clocks_(columns), phases_(static_cast<std::size_t>(n_)) {
    const auto cells = static_cast<std::size_t>(columns.num_cells);
    const std::size_t cells_of_streams = cells * static_cast<std::size_t>(n_);
    result_.toucher.assign(cells, -1);
    result_.owner.assign(cells, -1);
    result_.entry_reader.assign(cells, -1);
    result_.last_read.assign(cells_of_streams, -1);
    result_.last_change.assign(cells_of_streams, -1);
    result_.first_read.assign(cells_of_streams, 0);
    result_.first_change.assign(cells_of_streams, 0);
  }

  Replayed Run(const std::atomic<bool>& cancelled) {
    const auto num_ops = static_cast<int32_t>(columns_.streams.size());
    for (int32_t id = 0; id < num_ops; id++) {
      if (id % kOpsBetweenLooks == 0 && cancelled.load(std::memory_order_relaxed)) return std::move(result_);
      if (RunOp(id)) continue;
      result_.problem_op = id;
      return std::move(result_);
    }
    Finish();
    return std::move(result_);
  }

 private:
  // False where something is wrong with the op.
  bool RunOp(int32_t id) {
    const Row<kStreams> row = clocks_.Next(id);
    id_ = id;
    stream_ = columns_.streams[id];
    EnterPhase(row);
    // Ops of one stream are in order.
    for (int32_t t = 0; t < n_; t++) known_[t] = t == stream_ ? id : row[t];
    const int32_t reads = columns_.first_read[id];
    const int32_t writes = columns_.first_write[id];
    const int32_t accumulates = columns_.first_accumulate[id];
    const int32_t end = columns_.first_read[id + 1];
    for (int32_t i = reads; i < writes; i++)
      if (!Touch<true, false>(columns_.op_views[i])) return false;
    for (int32_t i = accumulates; i < end; i++)
      if (!Touch<true, true>(columns_.op_views[i])) return false;
    for (int32_t i = writes; i < accumulates; i++)
      if (!Touch<false, true>(columns_.op_views[i])) return false;
    return true;
  }

  template <typename Known>
  int32_t EntriesBefore(const Known& row, int32_t stream) const {
    int32_t mask = 1 << stream;
    for (int32_t t = 0; t < n_; t++) mask |= (row[t] >= 0 ? 1 : 0) << t;
    return mask;
  }

  void EnterPhase(const Row<kStreams>& row) {
    std::vector<int32_t>& phases = phases_[stream_];
    const int32_t mask = EntriesBefore(row, stream_);
    if (phases.empty() || phases.back() != mask) phases.push_back(mask);
    phase_ = static_cast<uint8_t>(phases.size());
  }

  template <bool kReads, bool kChanges>
  bool Touch(int32_t view) {
    const int32_t slot = columns_.view_slot[view];
    const int32_t end = columns_.view_high[view];
    for (int32_t cell = columns_.view_low[view]; cell < end; cell++) {
      const std::size_t at = static_cast<std::size_t>(cell) * n_;
      if (Races<kChanges>(at)) return false;
      if (kReads && result_.owner[cell] != slot && !ReadEntry(slot, cell)) return false;
      const std::size_t own = at + stream_;
      if (kChanges) {
        if (result_.last_read[own] == id_ || result_.last_change[own] == id_) return false;
        if (result_.last_change[own] < 0) result_.first_change[own] = phase_;
        result_.last_change[own] = id_;
        result_.owner[cell] = slot;
      } else {
        if (result_.last_read[own] < 0) result_.first_read[own] = phase_;
        result_.last_read[own] = id_;
      }
      result_.toucher[cell] = slot;
    }
    return true;
  }

  template <bool kChanges>
  bool Races(std::size_t at) const {
    const int32_t* change = result_.last_change.data() + at;
    const int32_t* read = result_.last_read.data() + at;
    // Without a branch a stream, so that all of them are compared at once.
    int32_t races = 0;
    for (int32_t t = 0; t < n_; t++) {
      races |= static_cast<int32_t>(change[t] > known_[t]);
      if (kChanges) races |= static_cast<int32_t>(read[t] > known_[t]);
    }
    return races != 0;
  }

  // A read of what this call has not written through the slot: right where it is the slot's entry value, still untouched.
  bool ReadEntry(int32_t slot, int32_t cell) {
    if (result_.owner[cell] >= 0 || columns_.slot_has_entry[slot] == 0) return false;
    int32_t& reader = result_.entry_reader[cell];
    if (reader == -1) {
      reader = slot;
    } else if (reader != slot) {
      result_.shared_entries.push_back(cell);
      result_.shared_entries.push_back(slot);
    }
    return true;
  }

  void Finish() {
    result_.tail_entries.assign(static_cast<std::size_t>(n_), -1);
    result_.tail_ops.assign(static_cast<std::size_t>(n_) * n_, -1);
    for (int32_t stream = 0; stream < n_; stream++) {
      result_.phase_offsets.push_back(static_cast<int32_t>(result_.phases.size()));
      result_.phases.insert(result_.phases.end(), phases_[stream].begin(), phases_[stream].end());
      const int32_t last = clocks_.Latest(stream);
      if (last < 0) continue;
      const int32_t* row = clocks_.Of(last);
      result_.tail_entries[stream] = EntriesBefore(row, stream);
      for (int32_t t = 0; t < n_; t++) result_.tail_ops[static_cast<std::size_t>(stream) * n_ + t] = t == stream ? last : row[t];
    }
    result_.phase_offsets.push_back(static_cast<int32_t>(result_.phases.size()));
  }

  const ReplayColumns& columns_;
  const Count<kStreams> n_;
  Clocks<kStreams> clocks_;
  std::vector<std::vector<int32_t>> phases_;
  // What the op at hand knows, by stream.
  Row<kStreams> known_{};
  Replayed result_;
  int32_t id_ = 0;
  int32_t stream_ = 0;
  uint8_t phase_ = 0;
};

}  // namespace

Replayed Replay(const ReplayColumns& columns, const std::atomic<bool>& cancelled) {
  switch (columns.num_streams) {
    case 4:
      return CallReplay<4>(columns).Run(cancelled);
    case 6:
      return CallReplay<6>(columns).Run(cancelled);
    default:
      return CallReplay<0>(columns).Run(cancelled);
  }
}

}  // namespace fpdt
