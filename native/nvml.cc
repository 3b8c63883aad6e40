#include "nvml.h"

namespace fpdt {
namespace {

// `value` where nothing went wrong.
template <typename T>
Fact<T> FactOf(const std::string& failure, T value) {
  return failure.empty() ? Fact<T>::Of(std::move(value)) : Fact<T>::Unknown(failure);
}

}  // namespace

Nvml::Nvml(const std::string& library) : library_(library) {
  reason_ = library_.is_open() ? Call<nvml::Init>("nvmlInit_v2") : library_.reason();
}

Nvml::~Nvml() {
  if (is_ready()) Call<nvml::Shutdown>("nvmlShutdown");
}

Fact<std::string> Nvml::DriverVersion() const {
  // One byte more than NVML is told of: the text ends, whatever it writes.
  char text[nvml::kVersionBytes + 1] = {};
  const auto failure = Call<nvml::SystemText>("nvmlSystemGetDriverVersion", text, nvml::kVersionBytes);
  return FactOf(failure, std::string(text));
}

Fact<unsigned int> Nvml::NumGpus() const {
  unsigned int count = 0;
  const auto failure = Call<nvml::DeviceCount>("nvmlDeviceGetCount_v2", &count);
  return FactOf(failure, count);
}

Fact<nvml::Device> Nvml::Gpu(unsigned int index) const {
  nvml::Device gpu = nullptr;
  const auto failure = Call<nvml::DeviceByIndex>("nvmlDeviceGetHandleByIndex_v2", index, &gpu);
  return FactOf(failure, gpu);
}

Fact<std::string> Nvml::Name(nvml::Device gpu) const {
  char text[nvml::kNameBytes + 1] = {};
  const auto failure = Call<nvml::DeviceText>("nvmlDeviceGetName", gpu, text, nvml::kNameBytes);
  return FactOf(failure, std::string(text));
}

Fact<nvml::PciInfo> Nvml::Pci(nvml::Device gpu) const {
  nvml::PciInfo info{};
  const auto failure = Call<nvml::DevicePci>("nvmlDeviceGetPciInfo_v3", gpu, &info);
  return FactOf(failure, info);
}

Fact<nvml::MemoryV2> Nvml::MemoryWithReserve(nvml::Device gpu) const {
  nvml::MemoryV2 memory{};
  memory.version = nvml::kMemoryV2;
  const auto failure = Call<nvml::DeviceMemoryV2>("nvmlDeviceGetMemoryInfo_v2", gpu, &memory);
  return FactOf(failure, memory);
}

Fact<nvml::Memory> Nvml::Memory(nvml::Device gpu) const {
  nvml::Memory memory{};
  const auto failure = Call<nvml::DeviceMemory>("nvmlDeviceGetMemoryInfo", gpu, &memory);
  return FactOf(failure, memory);
}

Fact<uint64_t> Nvml::Number(nvml::Device gpu, const char* function) const {
  unsigned int number = 0;
  const auto failure = Call<nvml::DeviceNumber>(function, gpu, &number);
  return FactOf(failure, static_cast<uint64_t>(number));
}

Fact<bool> Nvml::IsOn(nvml::Device gpu, const char* function) const {
  unsigned int now = 0, pending = 0;
  const auto failure = Call<nvml::DeviceMode>(function, gpu, &now, &pending);
  return FactOf(failure, now != 0);
}

Fact<std::vector<unsigned int>> Nvml::ActiveLinks(nvml::Device gpu) const {
  constexpr const char* kFunction = "nvmlDeviceGetNvLinkState";
  const auto state = library_.Find<nvml::LinkState>(kFunction);
  if (state == nullptr) return Fact<std::vector<unsigned int>>::Unknown(library_.name() + " has no " + kFunction);
  std::vector<unsigned int> active;
  for (unsigned int link = 0; link < nvml::kMaxNvlinks; ++link) {
    unsigned int is_active = 0;
    const nvml::Return code = state(gpu, link, &is_active);
    // A device says so of a link that it does not have.
    if (code == nvml::kNotSupported || code == nvml::kInvalidArgument) break;
    if (code != nvml::kSuccess) return Fact<std::vector<unsigned int>>::Unknown(Failure(kFunction, code));
    if (is_active != 0) active.push_back(link);
  }
  return Fact<std::vector<unsigned int>>::Of(active);
}

Fact<nvml::PciInfo> Nvml::LinkPeer(nvml::Device gpu, unsigned int link) const {
  nvml::PciInfo info{};
  const auto failure = Call<nvml::LinkPci>("nvmlDeviceGetNvLinkRemotePciInfo_v2", gpu, link, &info);
  return FactOf(failure, info);
}

Fact<std::string> Nvml::LinkPeerKind(nvml::Device gpu, unsigned int link) const {
  int kind = nvml::kRemoteUnknown;
  const auto failure = Call<nvml::LinkRemoteType>("nvmlDeviceGetNvLinkRemoteDeviceType", gpu, link, &kind);
  const char* name = kind == nvml::kRemoteGpu ? "gpu" : kind == nvml::kRemoteSwitch ? "switch" : "other";
  return FactOf(failure, std::string(name));
}

template <typename Function, typename... Arguments>
std::string Nvml::Call(const char* function, Arguments... arguments) const {
  const auto address = library_.Find<Function>(function);
  if (address == nullptr) return library_.name() + " has no " + function;
  const nvml::Return code = address(arguments...);
  return code == nvml::kSuccess ? "" : Failure(function, code);
}

std::string Nvml::Failure(const char* function, nvml::Return code) const {
  const auto describe = library_.Find<nvml::ErrorString>("nvmlErrorString");
  const char* words = describe == nullptr ? nullptr : describe(code);
  const std::string number = "error " + std::to_string(code);
  return std::string(function) + ": " + (words == nullptr ? number : words + (" (" + number) + ')');
}

}  // namespace fpdt
