// One open NVML: every question is answered by a value or by the reason why there is none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fact.h"
#include "nvml_api.h"
#include "shared_library.h"

namespace fpdt {

class Nvml {
 public:
  explicit Nvml(const std::string& library);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Whether questions can be asked; the reason says why not.
  bool is_ready() const { return reason_.empty(); }
  const std::string& reason() const { return reason_; }

  Fact<std::string> DriverVersion() const;
  Fact<unsigned int> NumGpus() const;
  Fact<nvml::Device> Gpu(unsigned int index) const;
  Fact<std::string> Name(nvml::Device gpu) const;
  Fact<nvml::PciInfo> Pci(nvml::Device gpu) const;
  Fact<nvml::MemoryV2> MemoryWithReserve(nvml::Device gpu) const;
  Fact<nvml::Memory> Memory(nvml::Device gpu) const;
  // `function` names one of NVML's that returns a number, e.g. nvmlDeviceGetCurrPcieLinkWidth.
  Fact<uint64_t> Number(nvml::Device gpu, const char* function) const;
  // `function` names one of NVML's that returns a mode and the one pending.
  Fact<bool> IsOn(nvml::Device gpu, const char* function) const;
  // Numbers of the NVLinks that are up: none on a device that has no NVLink.
  Fact<std::vector<unsigned int>> ActiveLinks(nvml::Device gpu) const;
  Fact<nvml::PciInfo> LinkPeer(nvml::Device gpu, unsigned int link) const;
  // `gpu`, `switch` or `other`.
  Fact<std::string> LinkPeerKind(nvml::Device gpu, unsigned int link) const;

 private:
  // Calls `function`, whose results go where `arguments` point. Returns why there are none, or nothing.
  template <typename Function, typename... Arguments>
  std::string Call(const char* function, Arguments... arguments) const;
  std::string Failure(const char* function, nvml::Return code) const;

  SharedLibrary library_;
  std::string reason_;
};

}  // namespace fpdt
