// Waits and writes are stream memory operations on one 32-bit word a stream; copies between two of them are one call of the driver.
// CUDA Driver API, "Stream Memory Operations" and cuMemcpyBatchAsync (from 12.8 on; its signature is that of 13.0).
#include "cuda_device.h"

#include <cuda.h>

#include <string>

namespace fpdt {

namespace {

void Check(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  const char* text = nullptr;
  cuGetErrorString(result, &text);
  throw DeviceError(std::string(call) + ": " + (text == nullptr ? "unknown error" : text));
}

class CudaDevice : public CopyDevice {
 public:
  CudaDevice(int device, int32_t num_streams, uint32_t owned, const int64_t* handles)
      : owned_(owned), handles_(handles, handles + num_streams), batches_(handles_.size()) {
    CUdevice found{};
    Check(cuDeviceGet(&found, device), "cuDeviceGet");
    Check(cuDevicePrimaryCtxRetain(&context_, found), "cuDevicePrimaryCtxRetain");
    device_ = found;
    Enter();
    Check(cuMemAlloc(&counters_, handles_.size() * sizeof(uint32_t)), "cuMemAlloc");
    Check(cuMemsetD32(counters_, 0, handles_.size()), "cuMemsetD32");
  }

  ~CudaDevice() override {
    if (cuCtxSetCurrent(context_) == CUDA_SUCCESS && counters_ != 0) cuMemFree(counters_);
    cuDevicePrimaryCtxRelease(device_);
  }

  void Wait(int queue, int stream, uint32_t position) override { WaitOn(handles_[static_cast<std::size_t>(queue)], stream, position); }

  void Copy(int queue, const CopyPiece* pieces, std::size_t num_pieces) override {
    Enter();
    Batch& batch = batches_[static_cast<std::size_t>(queue)];
    batch.dst.clear(), batch.src.clear(), batch.bytes.clear();
    for (std::size_t i = 0; i < num_pieces; i++) {
      batch.dst.push_back(reinterpret_cast<CUdeviceptr>(pieces[i].dst));
      batch.src.push_back(reinterpret_cast<CUdeviceptr>(pieces[i].src));
      batch.bytes.push_back(pieces[i].bytes);
    }
    CUmemcpyAttributes attributes{};
    attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    attributes.flags = CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE;
    std::size_t first = 0;
    Check(cuMemcpyBatchAsync(batch.dst.data(), batch.src.data(), batch.bytes.data(), num_pieces, &attributes, &first, 1,
                             StreamOf(handles_[static_cast<std::size_t>(queue)])),
          "cuMemcpyBatchAsync");
  }

  void Write(int queue, uint32_t position) override { WriteOn(handles_[static_cast<std::size_t>(queue)], queue, position); }

  // The stream waits, and the host goes on.
  bool WaitOn(int64_t handle, int stream, uint32_t position) override {
    Enter();
    Check(cuStreamWaitValue32(StreamOf(handle), CounterOf(stream), position, CU_STREAM_WAIT_VALUE_GEQ), "cuStreamWaitValue32");
    return true;
  }

  // With the barrier that is the default: what the stream did before is seen by whoever sees the value.
  void WriteOn(int64_t handle, int stream, uint32_t position) override {
    Enter();
    Check(cuStreamWriteValue32(StreamOf(handle), CounterOf(stream), position, CU_STREAM_WRITE_VALUE_DEFAULT), "cuStreamWriteValue32");
  }

  // In the order of the streams, so that no counter goes back: those that Python runs write where their ops would have come, after
  // which every wait that is queued ends. Without handles (a failure that another thread found) that is Reset's to do.
  void Release(const std::vector<uint32_t>& positions, const std::vector<int64_t>& handles) override {
    for (std::size_t stream = 0; stream < handles.size(); stream++)
      if ((owned_ >> stream & 1) == 0) WriteOn(handles[stream], static_cast<int>(stream), positions[stream]);
  }

  void Finish(uint32_t owned, const std::vector<uint32_t>& positions) override {
    Enter();
    for (std::size_t stream = 0; stream < handles_.size(); stream++)
      if (owned >> stream & 1) Write(static_cast<int>(stream), positions[stream]);
    for (std::size_t stream = 0; stream < handles_.size(); stream++)
      if (owned >> stream & 1) Check(cuStreamSynchronize(StreamOf(handles_[stream])), "cuStreamSynchronize");
  }

 private:
  struct Batch {
    std::vector<CUdeviceptr> dst, src;
    std::vector<std::size_t> bytes;
  };

  static CUstream StreamOf(int64_t handle) { return reinterpret_cast<CUstream>(handle); }
  CUdeviceptr CounterOf(int stream) const { return counters_ + static_cast<std::size_t>(stream) * sizeof(uint32_t); }
  // A context is current by thread.
  void Enter() const { Check(cuCtxSetCurrent(context_), "cuCtxSetCurrent"); }

  const uint32_t owned_;
  const std::vector<int64_t> handles_;
  std::vector<Batch> batches_;
  CUdevice device_{};
  CUcontext context_{};
  CUdeviceptr counters_ = 0;
};

}  // namespace

std::unique_ptr<CopyDevice> MakeCudaDevice(int device, int32_t num_streams, uint32_t owned, const int64_t* handles) {
  return std::make_unique<CudaDevice>(device, num_streams, owned, handles);
}

}  // namespace fpdt
