// One call of a section, op by op over the cells of memory that it touches: the twin of src/verify/replay.ts, for long sections.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fpdt {

// Entry masks are 32-bit numbers with a bit a stream, as in src/verify/frame.ts.
constexpr int32_t kMostStreams = 31;

// Elements that someone else holds.
template <typename T>
class Span {
 public:
  Span() = default;
  Span(const T* data, std::size_t size) : data_(data), size_(size) {}
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  const T* data_ = nullptr;
  std::size_t size_ = 0;
};

// Columns over ops, views and slots; see ReplayColumns in src/verify/replayColumns.ts.
struct ReplayColumns {
  int32_t num_streams = 0;
  int32_t num_cells = 0;
  Span<uint8_t> streams;
  Span<int32_t> wait_offsets;
  Span<int32_t> waits;
  Span<int32_t> first_read;
  Span<int32_t> first_write;
  Span<int32_t> first_accumulate;
  Span<int32_t> op_views;
  Span<int32_t> view_slot;
  Span<int32_t> view_low;
  Span<int32_t> view_high;
  Span<uint8_t> slot_has_entry;
};

// By cell, or by cell and stream; see Replayed in src/verify/replayColumns.ts.
struct Replayed {
  // The first op at which something is wrong; -1 for none. After it nothing else here counts.
  int32_t problem_op = -1;
  std::vector<int32_t> toucher;
  std::vector<int32_t> owner;
  std::vector<int32_t> entry_reader;
  std::vector<int32_t> last_read;
  std::vector<int32_t> last_change;
  std::vector<uint8_t> first_read;
  std::vector<uint8_t> first_change;
  // Pairs of a cell and a slot.
  std::vector<int32_t> shared_entries;
  // Masks of all streams, one stream after the other, and where those of each begin.
  std::vector<int32_t> phases;
  std::vector<int32_t> phase_offsets;
  // By stream: the mask of its last op, -1 where it has none; and row-major the last op of each stream that this knows.
  std::vector<int32_t> tail_entries;
  std::vector<int32_t> tail_ops;
};

// Throws std::invalid_argument, with the column and the element, for columns that are of no section.
void CheckColumns(const ReplayColumns& columns);

// Of columns that were checked. Looks at `cancelled` now and then, and returns what it has once that is set.
Replayed Replay(const ReplayColumns& columns, const std::atomic<bool>& cancelled);

}  // namespace fpdt
