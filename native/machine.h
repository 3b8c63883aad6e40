// Facts of this machine as JSON text, the MachineFacts of src/machine/facts.ts. Nothing is written, and no device computes.
#pragma once

#include <string>

namespace fpdt {

// Where facts come from; tests give others.
struct FactSources {
  std::string nvml_library = "libnvidia-ml.so.1";
  std::string sys_root = "/sys";
  std::string proc_root = "/proc";
  std::string cgroup_root = "/sys/fs/cgroup";
};

std::string MachineFacts(const FactSources& sources);

}  // namespace fpdt
