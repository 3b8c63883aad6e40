#include "cgroup.h"

#include <filesystem>
#include <functional>
#include <sstream>
#include <vector>

#include "text_file.h"

namespace fpdt {
namespace {

// A version-1 limit that nobody set is the largest multiple of a page in 63 bits.
constexpr double kNoLimitBytes = 4e18;

// The folder of a controller and the group of this process below it.
struct Group {
  std::string folder;
  std::string path;
  bool is_version2;
};

// A line of /proc/self/cgroup is `id:controllers:path`; `0::path` is version 2, which a controller belongs to unless version 1 has it.
Fact<Group> GroupOf(const std::string& controller, const std::string& proc_root, const std::string& cgroup_root) {
  const std::string file = proc_root + "/self/cgroup";
  const auto text = ReadText(file);
  if (!text) return Fact<Group>::Unknown(text.reason);
  auto found = Fact<Group>::Unknown(file + " names no group of '" + controller + "'");
  for (const std::string& line : SplitLines(*text)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty() && !found) found = Fact<Group>::Of({cgroup_root, path, true});
    if ((',' + controllers + ',').find(',' + controller + ',') != std::string::npos) {
      found = Fact<Group>::Of({cgroup_root + '/' + controller, path, false});
    }
  }
  return found;
}

using ReadLimit = std::function<Fact<Limit>(const std::string& folder)>;

// The lowest limit of a group and those above it. A container sees its own group as the root, under a path that is not there.
Fact<Limit> LowestLimit(const Group& group, const ReadLimit& read) {
  auto lowest = Fact<Limit>::Unknown("");
  std::string path = group.path;
  for (;;) {
    const auto limit = read(group.folder + (path == "/" ? "" : path));
    if (!limit && lowest.reason.empty()) lowest.reason = limit.reason;
    const bool is_lower = limit && (!lowest || (*lowest).is_unlimited || (!(*limit).is_unlimited && (*limit).value < (*lowest).value));
    if (is_lower) lowest.value = *limit;
    if (path.empty() || path == "/") break;
    path = path.substr(0, path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  // The root group of version 2 has no files of limits.
  std::error_code error;
  const bool is_root = group.is_version2 && (group.path == "/" || group.path.empty());
  if (!lowest && is_root && std::filesystem::exists(group.folder + "/cgroup.controllers", error)) lowest.value = Limit::Unlimited();
  return lowest;
}

Fact<Limit> LimitFrom(const Fact<double>& number) {
  return number ? Fact<Limit>::Of(Limit::At(*number)) : Fact<Limit>::Unknown(number.reason);
}

Fact<Limit> MemoryLimit(const std::string& folder, bool is_version2) {
  const std::string path = folder + (is_version2 ? "/memory.max" : "/memory.limit_in_bytes");
  const auto text = ReadText(path);
  if (!text) return Fact<Limit>::Unknown(text.reason);
  const auto limit = *text == "max" ? Fact<Limit>::Of(Limit::Unlimited()) : LimitFrom(ParseNumber(*text, path));
  return limit && (*limit).value >= kNoLimitBytes ? Fact<Limit>::Of(Limit::Unlimited()) : limit;
}

// CPUs' worth of time: a quota over a period, both in microseconds.
Fact<Limit> CpuLimit(const std::string& folder, bool is_version2) {
  std::string quota, period, path = folder + "/cpu.max";
  if (is_version2) {
    const auto text = ReadText(path);
    if (!text) return Fact<Limit>::Unknown(text.reason);
    std::istringstream(*text) >> quota >> period;
  } else {
    path = folder + "/cpu.cfs_quota_us";
    const auto quota_text = ReadText(path), period_text = ReadText(folder + "/cpu.cfs_period_us");
    if (!quota_text) return Fact<Limit>::Unknown(quota_text.reason);
    if (!period_text) return Fact<Limit>::Unknown(period_text.reason);
    quota = *quota_text;
    period = *period_text;
  }
  if (quota == "max" || quota == "-1") return Fact<Limit>::Of(Limit::Unlimited());
  const auto used = ParseNumber(quota, path), of = ParseNumber(period, path);
  if (!used || !of) return LimitFrom(used ? of : used);
  if (*of <= 0) return Fact<Limit>::Unknown(path + ": a period of " + period);
  return Fact<Limit>::Of(Limit::At(*used / *of));
}

Fact<Limit> LimitOf(const Fact<Group>& group, Fact<Limit> (*read)(const std::string&, bool)) {
  if (!group) return Fact<Limit>::Unknown(group.reason);
  return LowestLimit(*group, [&](const std::string& folder) { return read(folder, (*group).is_version2); });
}

}  // namespace

void WriteCgroup(FactsWriter& writer, const std::string& proc_root, const std::string& cgroup_root) {
  writer.OpenObject("cgroup");
  writer.Member("memoryLimitBytes", LimitOf(GroupOf("memory", proc_root, cgroup_root), MemoryLimit));
  writer.Member("cpuLimit", LimitOf(GroupOf("cpu", proc_root, cgroup_root), CpuLimit));
  writer.Close();
}

}  // namespace fpdt
