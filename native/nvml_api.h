// What is used of NVIDIA's NVML, declared here since its header may not be installed: types and numbers of nvml.h, which keeps them for good.
#pragma once

namespace fpdt::nvml {

using Return = int;
constexpr Return kSuccess = 0;
constexpr Return kInvalidArgument = 2;
constexpr Return kNotSupported = 3;

using Device = struct DeviceHandle*;

struct Memory {
  unsigned long long total, free, used;
};

// `total` counts what the driver keeps for itself; `reserved` says how much that is.
struct MemoryV2 {
  unsigned int version;
  unsigned long long total, reserved, free, used;
};
constexpr unsigned int kMemoryV2 = sizeof(MemoryV2) | (2U << 24);

struct PciInfo {
  char bus_id_legacy[16];
  unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68 && sizeof(MemoryV2) == 40, "the layout of nvml.h");

constexpr unsigned int kNameBytes = 96;
constexpr unsigned int kVersionBytes = 80;
constexpr unsigned int kMaxNvlinks = 18;

// What is at the other end of an NVLink.
constexpr int kRemoteGpu = 0, kRemoteSwitch = 2, kRemoteUnknown = 255;

using Init = Return();
using Shutdown = Return();
using ErrorString = const char*(Return);
using SystemText = Return(char*, unsigned int);
using DeviceCount = Return(unsigned int*);
using DeviceByIndex = Return(unsigned int, Device*);
using DeviceText = Return(Device, char*, unsigned int);
using DeviceMemory = Return(Device, Memory*);
using DeviceMemoryV2 = Return(Device, MemoryV2*);
using DevicePci = Return(Device, PciInfo*);
using DeviceNumber = Return(Device, unsigned int*);
// The mode now, and the mode after the next reset.
using DeviceMode = Return(Device, unsigned int*, unsigned int*);
using LinkState = Return(Device, unsigned int, unsigned int*);
using LinkPci = Return(Device, unsigned int, PciInfo*);
using LinkRemoteType = Return(Device, unsigned int, int*);

}  // namespace fpdt::nvml
