// Whether columns are those of a section: every number that the replay uses as a place is one.
#include <stdexcept>
#include <string>

#include "replay.h"

namespace fpdt {

namespace {

// With all of their columns some 20 GB: more than any plan, and less than overflows a size.
constexpr int64_t kMostCellsOfStreams = int64_t{1} << 31;

[[noreturn]] void Refuse(const std::string& what) { throw std::invalid_argument("replay: " + what); }

void CheckLength(const char* name, std::size_t found, std::size_t expected) {
  if (found != expected) Refuse(std::string(name) + " has " + std::to_string(found) + " elements, expected " + std::to_string(expected));
}

// Refuses the first element that is `bad`. Nearly all columns have none: first a loop that only counts, which has no branches.
template <typename T, typename Bad>
void RefuseFirst(const char* name, const Span<T>& values, std::size_t first, std::size_t end, Bad bad) {
  bool any = false;
  for (std::size_t i = first; i < end; i++) any |= bad(i);
  if (!any) return;
  std::size_t at = first;
  while (!bad(at)) at++;
  Refuse(std::string(name) + " cannot be " + std::to_string(values[at]) + " (element " + std::to_string(at) + ")");
}

// 0 <= values[i] < end, which is no more than 2^32.
template <typename T>
void CheckBelow(const char* name, const Span<T>& values, std::size_t end) {
  RefuseFirst(name, values, 0, values.size(), [&](std::size_t i) { return static_cast<uint32_t>(values[i]) >= end; });
}

void CheckWaits(const ReplayColumns& c) {
  const std::size_t num_ops = c.streams.size();
  const auto& offsets = c.wait_offsets;
  CheckLength("waitOffsets", offsets.size(), num_ops + 1);
  RefuseFirst("waitOffsets", offsets, 0, 1, [&](std::size_t) { return offsets[0] != 0; });
  RefuseFirst("waitOffsets", offsets, 1, num_ops + 1, [&](std::size_t i) { return offsets[i] < offsets[i - 1]; });
  CheckLength("waits", c.waits.size(), static_cast<std::size_t>(offsets[num_ops]));
  for (std::size_t id = 0; id < num_ops; id++)
    RefuseFirst("waits", c.waits, offsets[id], offsets[id + 1], [&](std::size_t w) { return static_cast<uint32_t>(c.waits[w]) >= id; });
}

void CheckOps(const ReplayColumns& c) {
  const std::size_t num_ops = c.streams.size();
  const auto &reads = c.first_read, &writes = c.first_write, &accumulates = c.first_accumulate;
  CheckBelow("streams", c.streams, static_cast<std::size_t>(c.num_streams));
  CheckLength("firstRead", reads.size(), num_ops + 1);
  CheckLength("firstWrite", writes.size(), num_ops);
  CheckLength("firstAccumulate", accumulates.size(), num_ops);
  RefuseFirst("firstRead", reads, 0, 1, [&](std::size_t) { return reads[0] != 0; });
  RefuseFirst("firstWrite", writes, 0, num_ops, [&](std::size_t i) { return writes[i] < reads[i]; });
  RefuseFirst("firstAccumulate", accumulates, 0, num_ops, [&](std::size_t i) { return accumulates[i] < writes[i]; });
  RefuseFirst("firstRead", reads, 1, num_ops + 1, [&](std::size_t i) { return reads[i] < accumulates[i - 1]; });
  CheckLength("opViews", c.op_views.size(), static_cast<std::size_t>(reads[num_ops]));
  CheckBelow("opViews", c.op_views, c.view_slot.size());
}

void CheckViews(const ReplayColumns& c) {
  const auto &low = c.view_low, &high = c.view_high;
  CheckBelow("viewSlot", c.view_slot, c.slot_has_entry.size());
  CheckLength("viewLow", low.size(), c.view_slot.size());
  CheckLength("viewHigh", high.size(), c.view_slot.size());
  CheckBelow("viewHigh", high, static_cast<std::size_t>(c.num_cells) + 1);
  RefuseFirst("viewLow", low, 0, low.size(), [&](std::size_t i) { return low[i] < 0 || low[i] > high[i]; });
}

}  // namespace

void CheckColumns(const ReplayColumns& columns) {
  const int64_t streams = columns.num_streams;
  if (streams < 1 || streams > kMostStreams) Refuse("numStreams cannot be " + std::to_string(streams));
  if (columns.num_cells < 0 || columns.num_cells * streams > kMostCellsOfStreams)
    Refuse("numCells cannot be " + std::to_string(columns.num_cells));
  CheckWaits(columns);
  CheckOps(columns);
  CheckViews(columns);
}

}  // namespace fpdt
