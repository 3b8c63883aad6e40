#include "place.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fpdt {
namespace {

double AlignUp(double bytes, double alignment) { return std::ceil(bytes / alignment) * alignment; }

double BestFit(int32_t item, const std::vector<int32_t>& placed, const double* sizes, const uint8_t* conflicts, size_t count,
               double alignment, const double* offsets) {
  const double size = sizes[item];
  const uint8_t* row = conflicts + static_cast<size_t>(item) * count;
  double end = 0;
  double best = -1;
  double best_gap = std::numeric_limits<double>::infinity();
  for (const int32_t other : placed) {
    if (row[other] != 1) continue;
    const double gap = offsets[other] - end;
    if (gap >= size && gap < best_gap) {
      best = end;
      best_gap = gap;
    }
    end = std::max(end, AlignUp(offsets[other] + sizes[other], alignment));
  }
  return best >= 0 ? best : end;
}

}  // namespace

void PlaceByConflicts(const double* sizes, const uint8_t* conflicts, const int32_t* order, size_t count, double alignment,
                      double* offsets) {
  // By ascending offset; equal offsets in order of placement.
  std::vector<int32_t> placed;
  placed.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const int32_t item = order[i];
    offsets[item] = BestFit(item, placed, sizes, conflicts, count, alignment, offsets);
    const auto after = std::upper_bound(placed.begin(), placed.end(), offsets[item],
                                        [offsets](double offset, int32_t other) { return offset < offsets[other]; });
    placed.insert(after, item);
  }
}

}  // namespace fpdt
