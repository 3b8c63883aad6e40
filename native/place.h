// Placement of items that may overlap in memory only where they do not conflict; twin of src/plan/place.ts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fpdt {

// Greedy best fit: in `order`, each of the `count` items takes the smallest gap between placed conflicting items that it fits in.
// Sizes and offsets are whole bytes held in doubles, exact up to 2^53, as in JavaScript. `conflicts` is a row-major square matrix.
// Writes every item's offset into `offsets`. The caller has checked that `order` is a permutation of the items.
void PlaceByConflicts(const double* sizes, const uint8_t* conflicts, const int32_t* order, size_t count, double alignment,
                      double* offsets);

}  // namespace fpdt
