// A libnvidia-ml.so for tests, written against NVIDIA's documentation of NVML and not against native/nvml_api.h.
// Two A100s, joined by 12 NVLinks, the second one x8 of x16 and with MIG on. What is defined at compile time goes wrong:
//   INIT_CODE=n        nvmlInit fails with n        NO_INIT           there is no nvmlInit at all
//   NO_MEMORY_V2       of an old driver             NO_ERROR_STRING   codes have no words
//   LOST_GPU=n         GPU n fell off the bus       NO_LINKS          a board without NVLink, MIG and ECC
//   WILD               four billion GPUs            LONG_NAME         a name that fills its room and does not end
#include <cstring>

#ifndef INIT_CODE
#define INIT_CODE 0
#endif
#ifndef LOST_GPU
#define LOST_GPU -1
#endif

namespace {

enum { kOk = 0, kInvalidArgument = 2, kNotSupported = 3, kInsufficientSize = 7, kGpuIsLost = 15 };

struct Gpu {
  const char* name;
  unsigned int bus, pcie_generation, pcie_width, mig;
  unsigned long long free;
};
Gpu gpus[2] = {
    {"NVIDIA A100-SXM4-80GB", 0x4e, 4, 16, 0, 84000000000ULL},
    {"NVIDIA A100-SXM4-80GB", 0xb7, 1, 8, 1, 70000000000ULL},
};
constexpr unsigned long long kTotal = 85899345920ULL, kReserved = 650000000ULL;

Gpu& At(void* device) { return *static_cast<Gpu*>(device); }

int Put(const char* text, char* to, unsigned int size) {
  if (std::strlen(text) >= size) return kInsufficientSize;
  std::strcpy(to, text);
  return kOk;
}

int PutBus(unsigned int bus, void* info) {
  struct Pci {
    char legacy[16];
    unsigned int domain, bus, device, id, sub_system;
    char text[32];
  };
  *static_cast<Pci*>(info) = {"0000:4E:00.0", 0, bus, 0, 0x20b210de, 0x146310de, "00000000:4E:00.0"};
  return kOk;
}

}  // namespace

extern "C" {

#ifndef NO_INIT
int nvmlInit_v2() { return INIT_CODE; }
#endif
int nvmlShutdown() { return kOk; }

#ifndef NO_ERROR_STRING
const char* nvmlErrorString(int code) {
  switch (code) {
    case 9: return "Driver Not Loaded";
    case kNotSupported: return "Not Supported";
    case kGpuIsLost: return "GPU is lost";
    default: return "Unknown Error";
  }
}
#endif

int nvmlSystemGetDriverVersion(char* text, unsigned int size) { return Put("550.54.15", text, size); }

int nvmlDeviceGetCount_v2(unsigned int* count) {
#ifdef WILD
  *count = 4000000000U;
#else
  *count = 2;
#endif
  return kOk;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
  if (index >= 2) return kInvalidArgument;
  if (static_cast<int>(index) == LOST_GPU) return kGpuIsLost;
  *device = &gpus[index];
  return kOk;
}

int nvmlDeviceGetName(void* device, char* text, unsigned int size) {
#ifdef LONG_NAME
  (void)device;
  std::memset(text, 0xe9, size);
  return kOk;
#else
  return Put(At(device).name, text, size);
#endif
}

int nvmlDeviceGetMemoryInfo(void* device, void* memory) {
  struct Memory {
    unsigned long long total, free, used;
  };
  *static_cast<Memory*>(memory) = {kTotal, At(device).free, kTotal - At(device).free};
  return kOk;
}

#ifndef NO_MEMORY_V2
int nvmlDeviceGetMemoryInfo_v2(void* device, void* memory) {
  struct Memory {
    unsigned int version;
    unsigned long long total, reserved, free, used;
  };
  auto* given = static_cast<Memory*>(memory);
  if (given->version != (sizeof(Memory) | 2 << 24)) return 25;
  *given = {given->version, kTotal, kReserved, At(device).free, kTotal - kReserved - At(device).free};
  return kOk;
}
#endif

int nvmlDeviceGetPciInfo_v3(void* device, void* info) { return PutBus(At(device).bus, info); }

int nvmlDeviceGetCurrPcieLinkGeneration(void* device, unsigned int* number) {
  *number = At(device).pcie_generation;
  return kOk;
}
int nvmlDeviceGetMaxPcieLinkGeneration(void*, unsigned int* number) {
  *number = 4;
  return kOk;
}
int nvmlDeviceGetCurrPcieLinkWidth(void* device, unsigned int* number) {
  *number = At(device).pcie_width;
  return kOk;
}
int nvmlDeviceGetMaxPcieLinkWidth(void*, unsigned int* number) {
  *number = 16;
  return kOk;
}

#ifdef NO_LINKS
int nvmlDeviceGetNvLinkState(void*, unsigned int, unsigned int*) { return kNotSupported; }
int nvmlDeviceGetMigMode(void*, unsigned int*, unsigned int*) { return kNotSupported; }
int nvmlDeviceGetEccMode(void*, unsigned int*, unsigned int*) { return kNotSupported; }
#else
int nvmlDeviceGetNvLinkState(void*, unsigned int link, unsigned int* is_active) {
  if (link >= 12) return kInvalidArgument;
  *is_active = 1;
  return kOk;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned int, void* info) {
  return PutBus(&At(device) == &gpus[0] ? gpus[1].bus : gpus[0].bus, info);
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void*, unsigned int, int* kind) {
  *kind = 0;
  return kOk;
}
int nvmlDeviceGetMigMode(void* device, unsigned int* now, unsigned int* pending) {
  *now = *pending = At(device).mig;
  return kOk;
}
int nvmlDeviceGetEccMode(void*, unsigned int* now, unsigned int* pending) {
  *now = *pending = 1;
  return kOk;
}
#endif

}  // extern "C"
