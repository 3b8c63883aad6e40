#include "gpus.h"

#include <cstdio>
#include <filesystem>
#include <map>
#include <vector>

#include "nvml.h"
#include "text_file.h"

namespace fpdt {
namespace {

// No machine has more; a library that says so is not to be believed.
constexpr unsigned int kMaxGpus = 256;

// As sysfs names it: NVML's own has more digits of the domain, and capitals.
std::string BusId(const nvml::PciInfo& pci) {
  char text[48];
  std::snprintf(text, sizeof text, "%04x:%02x:%02x.0", pci.domain, pci.bus, pci.device);
  return text;
}

Fact<double> MemoryPart(const Fact<nvml::MemoryV2>& memory, unsigned long long nvml::MemoryV2::*part) {
  return memory ? Fact<double>::Of(static_cast<double>((*memory).*part)) : Fact<double>::Unknown(memory.reason);
}

void WriteMemory(FactsWriter& writer, const Nvml& nvml, nvml::Device gpu) {
  const auto memory = nvml.MemoryWithReserve(gpu);
  auto total = MemoryPart(memory, &nvml::MemoryV2::total);
  auto free = MemoryPart(memory, &nvml::MemoryV2::free);
  if (const auto old = memory ? Fact<nvml::Memory>{} : nvml.Memory(gpu)) {
    total = Fact<double>::Of(static_cast<double>((*old).total));
    free = Fact<double>::Of(static_cast<double>((*old).free));
  }
  writer.Member("memoryTotalBytes", total);
  writer.Member("memoryReservedBytes", MemoryPart(memory, &nvml::MemoryV2::reserved));
  writer.Member("memoryFreeBytes", free);
}

void WriteNvlinks(FactsWriter& writer, const Nvml& nvml, nvml::Device gpu) {
  const auto links = nvml.ActiveLinks(gpu);
  const auto count = links ? Fact<int>::Of(static_cast<int>((*links).size())) : Fact<int>::Unknown(links.reason);
  writer.Member("numNvlinks", count);
  // Peers in ascending order of their bus ids.
  std::map<std::string, std::pair<std::string, int>> peers;
  std::string reason = links.reason;
  for (const unsigned int link : links.value.value_or(std::vector<unsigned int>())) {
    const auto peer = nvml.LinkPeer(gpu, link);
    const auto kind = nvml.LinkPeerKind(gpu, link);
    if (!peer) {
      reason = peer.reason;
      continue;
    }
    auto& [peer_kind, num_links] = peers[BusId(*peer)];
    peer_kind = kind ? *kind : "unknown";
    num_links += 1;
    if (!kind) reason = kind.reason;
  }
  writer.OpenArray("nvlinkPeers");
  if (!reason.empty()) writer.Unknown("", reason);
  for (const auto& [bus_id, peer] : peers) {
    writer.OpenElement();
    writer.Member("busId", bus_id);
    writer.Member("kind", peer.first);
    writer.Member("numLinks", peer.second);
    writer.Close();
  }
  writer.Close();
}

// The bridges between the root complex and the device, from the root: GPUs that share one share its link.
Fact<std::vector<std::string>> Bridges(const std::string& link) {
  std::error_code error;
  const auto path = std::filesystem::canonical(link, error);
  if (error) return Fact<std::vector<std::string>>::Unknown("cannot follow " + link + ": " + error.message());
  std::vector<std::string> bridges;
  for (const auto& part : path.parent_path()) {
    const std::string name = part.string();
    if (!bridges.empty() || name.rfind("pci", 0) == 0) bridges.push_back(name);
  }
  return Fact<std::vector<std::string>>::Of(bridges);
}

Fact<double> NumaNode(const std::string& device) {
  auto node = ReadNumber(device + "/numa_node");
  if (node && *node < 0) return Fact<double>::Unknown(device + "/numa_node is -1: the firmware names no node");
  return node;
}

void WritePlace(FactsWriter& writer, const Nvml& nvml, nvml::Device gpu, const std::string& sys_root) {
  const auto pci = nvml.Pci(gpu);
  const std::string bus_id = pci ? BusId(*pci) : "";
  const std::string device = sys_root + "/bus/pci/devices/" + bus_id;
  writer.Member("busId", pci ? Fact<std::string>::Of(bus_id) : Fact<std::string>::Unknown(pci.reason));
  writer.Member("pcieGeneration", nvml.Number(gpu, "nvmlDeviceGetCurrPcieLinkGeneration"));
  writer.Member("pcieMaxGeneration", nvml.Number(gpu, "nvmlDeviceGetMaxPcieLinkGeneration"));
  writer.Member("pcieWidth", nvml.Number(gpu, "nvmlDeviceGetCurrPcieLinkWidth"));
  writer.Member("pcieMaxWidth", nvml.Number(gpu, "nvmlDeviceGetMaxPcieLinkWidth"));
  writer.Member("pcieBridges", pci ? Bridges(device) : Fact<std::vector<std::string>>::Unknown(pci.reason));
  writer.Member("numaNode", pci ? NumaNode(device) : Fact<double>::Unknown(pci.reason));
}

void WriteGpu(FactsWriter& writer, const Nvml& nvml, nvml::Device gpu, const std::string& sys_root) {
  writer.Member("name", nvml.Name(gpu));
  WriteMemory(writer, nvml, gpu);
  WritePlace(writer, nvml, gpu, sys_root);
  WriteNvlinks(writer, nvml, gpu);
  writer.Member("isMigOn", nvml.IsOn(gpu, "nvmlDeviceGetMigMode"));
  writer.Member("isEccOn", nvml.IsOn(gpu, "nvmlDeviceGetEccMode"));
}

// Why the number of GPUs cannot be used, or nothing.
std::string WhyNoGpus(const Fact<unsigned int>& count, const std::string& nvml_library) {
  if (!count) return count.reason;
  return *count > kMaxGpus ? nvml_library + " says that there are " + std::to_string(*count) + " GPUs" : "";
}

}  // namespace

void WriteGpus(FactsWriter& writer, const std::string& nvml_library, const std::string& sys_root) {
  const Nvml nvml(nvml_library);
  const auto count = nvml.is_ready() ? nvml.NumGpus() : Fact<unsigned int>::Unknown(nvml.reason());
  writer.Member("driverVersion", nvml.is_ready() ? nvml.DriverVersion() : Fact<std::string>::Unknown(nvml.reason()));
  writer.OpenArray("gpus");
  std::string reason = WhyNoGpus(count, nvml_library);
  const unsigned int num_gpus = reason.empty() ? *count : 0;
  for (unsigned int index = 0; index < num_gpus; ++index) {
    const auto gpu = nvml.Gpu(index);
    if (!gpu) {
      reason += (reason.empty() ? "GPU " : "; GPU ") + std::to_string(index) + ": " + gpu.reason;
      continue;
    }
    writer.OpenElement();
    writer.Member("index", static_cast<uint64_t>(index));
    WriteGpu(writer, nvml, *gpu, sys_root);
    writer.Close();
  }
  if (!reason.empty()) writer.Unknown("", reason);
  writer.Close();
}

}  // namespace fpdt
