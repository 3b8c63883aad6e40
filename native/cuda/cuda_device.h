// The queues as CUDA streams. Has never run on a GPU: tests give it a made-up driver.
#pragma once

#include <cstdint>
#include <memory>

#include "copy_device.h"
#include "cuda_driver.h"

namespace fpdt {

// `functions`: addresses of a DriverTable's. `handles`: the CUstream of each stream of the engine's (`owned`), made by the caller, who
// keeps it; of the host's streams kHost, of others anything. Throws DeviceError.
std::unique_ptr<CopyDevice> MakeCudaDevice(int device, const int64_t* functions, int32_t num_streams, uint32_t owned, const int64_t* handles);

}  // namespace fpdt
