// The addon's replay in a program of its own, to be built with sanitizers. Reads columns, each as its length and its numbers, prints what
// comes of them as JSON or why they are refused, and goes on to the next until there is no more.
#include <atomic>
#include <cstdio>
#include <exception>
#include <iostream>
#include <vector>

#include "replay.h"

namespace {

template <typename T>
std::vector<T> Read() {
  std::size_t length = 0;
  std::cin >> length;
  // Exactly as long: a read past the end is seen.
  std::vector<T> values;
  values.reserve(length);
  for (std::size_t i = 0; i < length; i++) {
    long value = 0;
    std::cin >> value;
    values.push_back(static_cast<T>(value));
  }
  return values;
}

template <typename T>
fpdt::Span<T> SpanOf(const std::vector<T>& values) {
  return {values.data(), values.size()};
}

template <typename T>
void Print(const char* name, const std::vector<T>& values) {
  std::printf(",\"%s\":[", name);
  for (std::size_t i = 0; i < values.size(); i++) std::printf(i == 0 ? "%d" : ",%d", static_cast<int>(values[i]));
  std::printf("]");
}

void Run(int32_t num_streams) {
  fpdt::ReplayColumns columns;
  columns.num_streams = num_streams;
  std::cin >> columns.num_cells;
  const auto streams = Read<uint8_t>();
  const auto wait_offsets = Read<int32_t>(), waits = Read<int32_t>(), first_read = Read<int32_t>(), first_write = Read<int32_t>();
  const auto first_accumulate = Read<int32_t>(), op_views = Read<int32_t>(), view_slot = Read<int32_t>();
  const auto view_low = Read<int32_t>(), view_high = Read<int32_t>();
  const auto slot_has_entry = Read<uint8_t>();
  columns.streams = SpanOf(streams);
  columns.wait_offsets = SpanOf(wait_offsets);
  columns.waits = SpanOf(waits);
  columns.first_read = SpanOf(first_read);
  columns.first_write = SpanOf(first_write);
  columns.first_accumulate = SpanOf(first_accumulate);
  columns.op_views = SpanOf(op_views);
  columns.view_slot = SpanOf(view_slot);
  columns.view_low = SpanOf(view_low);
  columns.view_high = SpanOf(view_high);
  columns.slot_has_entry = SpanOf(slot_has_entry);
  fpdt::CheckColumns(columns);
  const fpdt::Replayed found = fpdt::Replay(columns, std::atomic<bool>(false));
  std::printf("{\"problemOp\":%d", found.problem_op);
  Print("toucher", found.toucher);
  Print("owner", found.owner);
  Print("entryReader", found.entry_reader);
  Print("lastRead", found.last_read);
  Print("lastChange", found.last_change);
  Print("firstRead", found.first_read);
  Print("firstChange", found.first_change);
  Print("sharedEntries", found.shared_entries);
  Print("phases", found.phases);
  Print("phaseOffsets", found.phase_offsets);
  Print("tailEntries", found.tail_entries);
  Print("tailOps", found.tail_ops);
  std::printf("}\n");
}

}  // namespace

int main() {
  int32_t num_streams = 0;
  while (std::cin >> num_streams) {
    try {
      Run(num_streams);
    } catch (const std::exception& error) {
      std::printf("{\"refused\":\"%s\"}\n", error.what());
    }
  }
  return 0;
}
