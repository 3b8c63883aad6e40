// Waits and writes are stream memory operations on one 32-bit word a stream; copies between two of them are one call of the driver.
// CUDA Driver API, "Stream Memory Operations" and cuMemcpyBatchAsync (its signature is that of 13.0).
#include "cuda_device.h"

#include <cstring>
#include <string>

#include "counters.h"

namespace fpdt {

namespace {

DriverTable TableOf(const int64_t* functions) {
  DriverTable table;
  std::memcpy(&table, functions, sizeof table);
  return table;
}

class CudaDevice : public CopyDevice {
 public:
  CudaDevice(int device, const int64_t* functions, int32_t num_streams, uint32_t owned, const int64_t* handles)
      : driver_(TableOf(functions)), owned_(owned), handles_(handles, handles + num_streams), batches_(handles_.size()), launched_(num_streams) {
    Check(driver_.device_get(&device_, device), "cuDeviceGet");
    Check(driver_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
    try {
      Enter();
      Check(driver_.memory_alloc(&counters_, handles_.size() * sizeof(uint32_t)), "cuMemAlloc");
      Check(driver_.memory_set(counters_, 0, handles_.size()), "cuMemsetD32");
    } catch (const DeviceError&) {
      GiveBack();
      throw;
    }
  }

  ~CudaDevice() override { GiveBack(); }

  // Of what comes before a wait the driver knows nothing. Where it does one thing after the other all the same (it allocates or frees
  // memory, loads a kernel, puts two streams on one hardware queue), it goes by the order of launches: a queue that waited for what
  // comes later in that order would wait for ever.
  void AwaitLaunched(int stream, uint32_t position) override { launched_.Await(stream, position); }

  void Wait(int queue, int stream, uint32_t position) override {
    if (!IsHosts(stream)) QueueWait(HandleOf(queue), stream, position);
  }

  void Copy(int queue, const CopyPiece* pieces, std::size_t num_pieces) override {
    Enter();
    Batch& batch = batches_[static_cast<std::size_t>(queue)];
    batch.dst.clear(), batch.src.clear(), batch.bytes.clear();
    for (std::size_t i = 0; i < num_pieces; i++) {
      batch.dst.push_back(reinterpret_cast<CudaAddress>(pieces[i].dst));
      batch.src.push_back(reinterpret_cast<CudaAddress>(pieces[i].src));
      batch.bytes.push_back(pieces[i].bytes);
    }
    CudaCopyAttributes attributes{kCudaSourceInStreamOrder, {}, {}, kCudaOverlapWithCompute};
    std::size_t first = 0;
    Check(driver_.copy_batch(batch.dst.data(), batch.src.data(), batch.bytes.data(), num_pieces, &attributes, &first, 1, StreamOf(HandleOf(queue))),
          "cuMemcpyBatchAsync");
  }

  void Write(int queue, uint32_t position) override { WriteOn(HandleOf(queue), queue, position); }

  // The stream waits, and the host goes on; but for the host's own.
  bool WaitOn(int64_t handle, int stream, uint32_t position) override {
    if (handle != kHost) {
      QueueWait(handle, stream, position);
    } else if (!IsHosts(stream)) {
      Enter();
      Check(driver_.stream_synchronize(StreamOf(HandleOf(stream))), "cuStreamSynchronize");
    }
    return true;
  }

  void WriteOn(int64_t handle, int stream, uint32_t position) override {
    if (handle != kHost) {
      Enter();
      Check(driver_.stream_write(StreamOf(handle), CounterOf(stream), position, kCudaWriteDefault), "cuStreamWriteValue32");
    }
    launched_.Advance(stream, position);
  }

  // Only the host waits for what may never come. With handles, streams that Python runs come to where their ops would have come.
  void Release(const std::vector<uint32_t>& positions, const std::vector<int64_t>& handles) override {
    for (std::size_t stream = 0; stream < positions.size(); stream++) launched_.Advance(static_cast<int>(stream), positions[stream]);
    for (std::size_t stream = 0; stream < handles.size(); stream++)
      if ((owned_ >> stream & 1) == 0) WriteOn(handles[stream], static_cast<int>(stream), positions[stream]);
  }

  void Finish(uint32_t owned, const std::vector<uint32_t>& positions) override {
    Enter();
    for (std::size_t stream = 0; stream < handles_.size(); stream++)
      if (owned >> stream & 1) Write(static_cast<int>(stream), positions[stream]);
    for (std::size_t stream = 0; stream < handles_.size(); stream++)
      if (owned >> stream & 1) Check(driver_.stream_synchronize(StreamOf(handles_[stream])), "cuStreamSynchronize");
  }

 private:
  struct Batch {
    std::vector<CudaAddress> dst, src;
    std::vector<std::size_t> bytes;
  };

  static CudaStream* StreamOf(int64_t handle) { return reinterpret_cast<CudaStream*>(handle); }
  int64_t HandleOf(int stream) const { return handles_[static_cast<std::size_t>(stream)]; }
  bool IsHosts(int stream) const { return HandleOf(stream) == kHost; }
  CudaAddress CounterOf(int stream) const { return counters_ + static_cast<std::size_t>(stream) * sizeof(uint32_t); }
  // A context is current by thread.
  void Enter() const { Check(driver_.context_set_current(context_), "cuCtxSetCurrent"); }

  void QueueWait(int64_t handle, int stream, uint32_t position) {
    Enter();
    Check(driver_.stream_wait(StreamOf(handle), CounterOf(stream), position, kCudaWaitGreaterOrEqual), "cuStreamWaitValue32");
  }

  void GiveBack() {
    if (counters_ != 0 && driver_.context_set_current(context_) == kCudaSuccess) driver_.memory_free(counters_);
    driver_.context_release(device_);
  }

  void Check(CudaResult result, const char* call) const {
    if (result == kCudaSuccess) return;
    const char* text = nullptr;
    driver_.error_text(result, &text);
    throw DeviceError(std::string(call) + ": " + (text == nullptr ? "error " + std::to_string(result) : text));
  }

  const DriverTable driver_;
  const uint32_t owned_;
  const std::vector<int64_t> handles_;
  std::vector<Batch> batches_;
  // What was given to the device, by stream.
  Counters launched_;
  int device_ = 0;
  CudaContext* context_ = nullptr;
  CudaAddress counters_ = 0;
};

}  // namespace

std::unique_ptr<CopyDevice> MakeCudaDevice(int device, const int64_t* functions, int32_t num_streams, uint32_t owned, const int64_t* handles) {
  return std::make_unique<CudaDevice>(device, functions, num_streams, owned, handles);
}

}  // namespace fpdt
