// The queues as CUDA streams. Has never run on a GPU: nvcc compiles it, and the engine above it runs over the CPU twin.
#pragma once

#include <cstdint>
#include <memory>

#include "copy_device.h"

namespace fpdt {

// `handles`: the CUstream of each stream of the engine's (`owned`), made by the caller, who keeps it; of others 0. Throws DeviceError.
std::unique_ptr<CopyDevice> MakeCudaDevice(int device, int32_t num_streams, uint32_t owned, const int64_t* handles);

}  // namespace fpdt
