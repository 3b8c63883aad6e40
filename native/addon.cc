// The export table of the native planner core, and the checks that keep its loops inside their arrays.
#include <napi.h>

#include <string>
#include <vector>

#include "place.h"

namespace {

bool IsPermutation(const int32_t* order, size_t count) {
  std::vector<bool> seen(count, false);
  for (size_t i = 0; i < count; ++i) {
    if (order[i] < 0 || static_cast<size_t>(order[i]) >= count || seen[order[i]]) return false;
    seen[order[i]] = true;
  }
  return true;
}

bool IsArray(const Napi::Value& value, napi_typedarray_type type) {
  return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type;
}

// placeByConflicts(sizes: Float64Array, conflicts: Uint8Array, order: Int32Array, alignment: number): Float64Array
Napi::Value PlaceByConflicts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 4 || !IsArray(info[0], napi_float64_array) ||
      !IsArray(info[1], napi_uint8_array) || !IsArray(info[2], napi_int32_array) ||
      !info[3].IsNumber()) {
    throw Napi::TypeError::New(env, "placeByConflicts expects (Float64Array, Uint8Array, Int32Array, number)");
  }
  const auto sizes = info[0].As<Napi::Float64Array>();
  const auto conflicts = info[1].As<Napi::Uint8Array>();
  const auto order = info[2].As<Napi::Int32Array>();
  const size_t count = sizes.ElementLength();
  if (conflicts.ElementLength() != count * count) {
    throw Napi::RangeError::New(env, "conflicts has " + std::to_string(conflicts.ElementLength()) + " cells, " +
                                         std::to_string(count) + " items need " + std::to_string(count * count));
  }
  if (order.ElementLength() != count || !IsPermutation(order.Data(), count)) {
    throw Napi::RangeError::New(env, "order is not a permutation of the " + std::to_string(count) + " items");
  }
  auto offsets = Napi::Float64Array::New(env, count);
  fpdt::PlaceByConflicts(sizes.Data(), conflicts.Data(), order.Data(), count, info[3].As<Napi::Number>().DoubleValue(),
                         offsets.Data());
  return offsets;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("placeByConflicts", Napi::Function::New(env, PlaceByConflicts));
  return exports;
}

}  // namespace

NODE_API_MODULE(fpdt, Init)
