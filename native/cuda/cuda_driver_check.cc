// Compiled by nvcc against NVIDIA's header, and never run: cuda_driver.h says what that says.
#include <cuda.h>

#include <cstddef>
#include <type_traits>

#include "cuda_driver.h"

namespace {

// Pointers, enums and structs of ours are named otherwise, and are passed alike.
template <typename Ours, typename Theirs>
constexpr bool kAlike = sizeof(Ours) == sizeof(Theirs) &&
                        ((std::is_pointer<Ours>::value && std::is_pointer<Theirs>::value) ||
                         ((std::is_integral<Ours>::value || std::is_enum<Ours>::value) && (std::is_integral<Theirs>::value || std::is_enum<Theirs>::value)));

template <typename Ours, typename Theirs>
struct SameCall : std::false_type {};
template <typename OurResult, typename... Ours, typename TheirResult, typename... Theirs>
struct SameCall<OurResult (*)(Ours...), TheirResult (*)(Theirs...)>
    : std::integral_constant<bool, kAlike<OurResult, TheirResult> && sizeof...(Ours) == sizeof...(Theirs) && (kAlike<Ours, Theirs> && ...)> {};

#define FPDT_SAME(member, function) static_assert(SameCall<decltype(fpdt::DriverTable::member), decltype(&function)>::value, #function)
FPDT_SAME(device_get, cuDeviceGet);
FPDT_SAME(context_retain, cuDevicePrimaryCtxRetain);
FPDT_SAME(context_release, cuDevicePrimaryCtxRelease);
FPDT_SAME(context_set_current, cuCtxSetCurrent);
FPDT_SAME(memory_alloc, cuMemAlloc);
FPDT_SAME(memory_free, cuMemFree);
FPDT_SAME(memory_set, cuMemsetD32);
FPDT_SAME(stream_wait, cuStreamWaitValue32);
FPDT_SAME(stream_write, cuStreamWriteValue32);
FPDT_SAME(copy_batch, cuMemcpyBatchAsync);
FPDT_SAME(stream_synchronize, cuStreamSynchronize);
FPDT_SAME(error_text, cuGetErrorString);

// The names that the driver has them by; see DRIVER_FUNCTIONS of python/fpdt/copies/driver.py.
#define FPDT_TEXT_OF(name) #name
#define FPDT_NAME(macro) FPDT_TEXT_OF(macro)
constexpr bool Equal(const char* a, const char* b) { return *a == *b && (*a == 0 || Equal(a + 1, b + 1)); }
static_assert(Equal(FPDT_NAME(cuDevicePrimaryCtxRelease), "cuDevicePrimaryCtxRelease_v2"), "name");
static_assert(Equal(FPDT_NAME(cuMemAlloc), "cuMemAlloc_v2"), "name");
static_assert(Equal(FPDT_NAME(cuMemFree), "cuMemFree_v2"), "name");
static_assert(Equal(FPDT_NAME(cuMemsetD32), "cuMemsetD32_v2"), "name");
static_assert(Equal(FPDT_NAME(cuStreamWaitValue32), "cuStreamWaitValue32_v2"), "name");
static_assert(Equal(FPDT_NAME(cuStreamWriteValue32), "cuStreamWriteValue32_v2"), "name");
static_assert(Equal(FPDT_NAME(cuMemcpyBatchAsync), "cuMemcpyBatchAsync_v2"), "name");

static_assert(sizeof(fpdt::CudaCopyAttributes) == sizeof(CUmemcpyAttributes), "CUmemcpyAttributes");
static_assert(offsetof(fpdt::CudaCopyAttributes, source_hint) == offsetof(CUmemcpyAttributes, srcLocHint), "srcLocHint");
static_assert(offsetof(fpdt::CudaCopyAttributes, target_hint) == offsetof(CUmemcpyAttributes, dstLocHint), "dstLocHint");
static_assert(offsetof(fpdt::CudaCopyAttributes, flags) == offsetof(CUmemcpyAttributes, flags), "flags");
static_assert(sizeof(fpdt::CudaLocation) == sizeof(CUmemLocation), "CUmemLocation");

static_assert(fpdt::kCudaSuccess == CUDA_SUCCESS, "CUDA_SUCCESS");
static_assert(fpdt::kCudaWaitGreaterOrEqual == CU_STREAM_WAIT_VALUE_GEQ, "CU_STREAM_WAIT_VALUE_GEQ");
static_assert(fpdt::kCudaWriteDefault == CU_STREAM_WRITE_VALUE_DEFAULT, "CU_STREAM_WRITE_VALUE_DEFAULT");
static_assert(fpdt::kCudaSourceInStreamOrder == CU_MEMCPY_SRC_ACCESS_ORDER_STREAM, "CU_MEMCPY_SRC_ACCESS_ORDER_STREAM");
static_assert(fpdt::kCudaOverlapWithCompute == CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE, "CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE");

}  // namespace
