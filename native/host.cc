#include "host.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "text_file.h"

namespace fpdt {
namespace {

// `always [madvise] never`: the word that is chosen.
Fact<std::string> ChosenWord(const std::string& path) {
  const auto text = ReadText(path);
  if (!text) return text;
  const size_t open = (*text).find('['), close = (*text).find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) {
    return Fact<std::string>::Unknown(path + " has no word in brackets");
  }
  return Fact<std::string>::Of((*text).substr(open + 1, close - open - 1));
}

// Numbers of the folders `node0`, `node1`, ... in ascending order; empty with an error where there are none to read.
std::vector<int> NodeNumbers(const std::string& folder, std::error_code& error) {
  std::vector<int> nodes;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool is_node = name.size() > 4 && name.size() < 10 && name.rfind("node", 0) == 0 &&
                         name.find_first_not_of("0123456789", 4) == std::string::npos;
    if (is_node) nodes.push_back(std::stoi(name.substr(4)));
  }
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

Limit LimitOf(rlim_t value) { return value == RLIM_INFINITY ? Limit::Unlimited() : Limit::At(static_cast<double>(value)); }

#ifdef __linux__
struct FreeCpuSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};

// The CPUs that this process may run on, as the kernel writes lists: `0-3,8`. The kernel refuses a set smaller than its own.
Fact<std::string> AllowedCpus() {
  for (int num_cpus = 1024; num_cpus <= 1 << 20; num_cpus *= 2) {
    const std::unique_ptr<cpu_set_t, FreeCpuSet> set(CPU_ALLOC(num_cpus));
    const size_t size = CPU_ALLOC_SIZE(num_cpus);
    if (set == nullptr) break;
    if (sched_getaffinity(0, size, set.get()) != 0) {
      if (errno == EINVAL) continue;
      break;
    }
    std::string list;
    for (int cpu = 0; cpu < num_cpus; ++cpu) {
      if (!CPU_ISSET_S(cpu, size, set.get())) continue;
      int last = cpu;
      while (last + 1 < num_cpus && CPU_ISSET_S(last + 1, size, set.get())) ++last;
      list += (list.empty() ? "" : ",") + std::to_string(cpu) + (last > cpu ? '-' + std::to_string(last) : "");
      cpu = last;
    }
    return Fact<std::string>::Of(list);
  }
  return Fact<std::string>::Unknown(std::string("sched_getaffinity: ") + std::strerror(errno));
}
#else
Fact<std::string> AllowedCpus() { return Fact<std::string>::Unknown("sched_getaffinity is a call of Linux"); }
#endif

}  // namespace

void WriteMemory(FactsWriter& writer, const std::string& sys_root, const std::string& proc_root) {
  const std::string path = proc_root + "/meminfo";
  const auto text = ReadText(path);
  writer.OpenObject("memory");
  writer.Member("totalBytes", FieldOf(text, path, "MemTotal"));
  writer.Member("availableBytes", FieldOf(text, path, "MemAvailable"));
  writer.Member("hugePageBytes", FieldOf(text, path, "Hugepagesize"));
  writer.Member("numHugePages", FieldOf(text, path, "HugePages_Total"));
  writer.Member("numFreeHugePages", FieldOf(text, path, "HugePages_Free"));
  writer.Member("transparentHugePages", ChosenWord(sys_root + "/kernel/mm/transparent_hugepage/enabled"));
  writer.Close();
}

void WriteNumaNodes(FactsWriter& writer, const std::string& sys_root) {
  const std::string folder = sys_root + "/devices/system/node";
  std::error_code error;
  const auto nodes = NodeNumbers(folder, error);
  writer.OpenArray("numaNodes");
  if (error) writer.Unknown("", "cannot read " + folder + ": " + error.message());
  for (const int node : nodes) {
    const std::string base = folder + "/node" + std::to_string(node);
    const auto memory = ReadText(base + "/meminfo");
    writer.OpenElement();
    writer.Member("node", node);
    writer.Member("cpus", ReadText(base + "/cpulist"));
    writer.Member("memoryTotalBytes", FieldOf(memory, base + "/meminfo", "MemTotal"));
    writer.Member("memoryFreeBytes", FieldOf(memory, base + "/meminfo", "MemFree"));
    writer.Close();
  }
  writer.Close();
}

void WriteCpus(FactsWriter& writer, const std::string& sys_root) {
  writer.OpenObject("cpus");
  writer.Member("online", ReadText(sys_root + "/devices/system/cpu/online"));
  writer.Member("allowed", AllowedCpus());
  writer.Close();
}

void WriteMemlock(FactsWriter& writer) {
  rlimit limit{};
  const bool is_known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0;
  const std::string reason = is_known ? "" : std::string("getrlimit(RLIMIT_MEMLOCK): ") + std::strerror(errno);
  const auto fact = [&](rlim_t value) { return is_known ? Fact<Limit>::Of(LimitOf(value)) : Fact<Limit>::Unknown(reason); };
  writer.OpenObject("memlock");
  writer.Member("softBytes", fact(limit.rlim_cur));
  writer.Member("hardBytes", fact(limit.rlim_max));
  writer.Close();
}

}  // namespace fpdt
