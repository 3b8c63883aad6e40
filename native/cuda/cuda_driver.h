// What the engine calls of the CUDA driver, declared here: its interface is stable by the names of its functions, so the engine needs
// no header of a toolkit, nor the driver where it is built. cuda_driver_check.cc holds all of it against NVIDIA's own header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fpdt {

using CudaResult = int;
using CudaAddress = unsigned long long;
struct CudaContext;
struct CudaStream;

struct CudaLocation {
  int type;
  int id;
};

struct CudaCopyAttributes {
  int source_order;
  CudaLocation source_hint, target_hint;
  unsigned int flags;
};

constexpr CudaResult kCudaSuccess = 0;
// Cyclic, in 32 bits.
constexpr unsigned int kCudaWaitGreaterOrEqual = 0;
// With the barrier: what the stream did before is seen by whoever sees the value.
constexpr unsigned int kCudaWriteDefault = 0;
constexpr int kCudaSourceInStreamOrder = 1;
constexpr unsigned int kCudaOverlapWithCompute = 1;

// In the order of DRIVER_FUNCTIONS of python/fpdt/copies/driver.py, which finds their addresses. `_v2` is in the driver's names.
struct DriverTable {
  CudaResult (*device_get)(int* device, int ordinal);
  CudaResult (*context_retain)(CudaContext** context, int device);
  CudaResult (*context_release)(int device);
  CudaResult (*context_set_current)(CudaContext* context);
  CudaResult (*memory_alloc)(CudaAddress* address, std::size_t bytes);
  CudaResult (*memory_free)(CudaAddress address);
  CudaResult (*memory_set)(CudaAddress address, unsigned int value, std::size_t count);
  CudaResult (*stream_wait)(CudaStream* stream, CudaAddress address, uint32_t value, unsigned int flags);
  CudaResult (*stream_write)(CudaStream* stream, CudaAddress address, uint32_t value, unsigned int flags);
  CudaResult (*copy_batch)(CudaAddress* dst, CudaAddress* src, std::size_t* bytes, std::size_t count, CudaCopyAttributes* attributes,
                           std::size_t* attribute_of, std::size_t num_attributes, CudaStream* stream);
  CudaResult (*stream_synchronize)(CudaStream* stream);
  CudaResult (*error_text)(CudaResult result, const char** text);
};
constexpr int kNumDriverFunctions = 12;
static_assert(sizeof(DriverTable) == kNumDriverFunctions * sizeof(int64_t), "a function of the table is an address");

}  // namespace fpdt
