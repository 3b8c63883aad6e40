#include "machine.h"

#include "cgroup.h"
#include "facts_writer.h"
#include "gpus.h"
#include "host.h"

namespace fpdt {

std::string MachineFacts(const FactSources& sources) {
  FactsWriter writer("machineFacts");
  WriteGpus(writer, sources.nvml_library, sources.sys_root);
  WriteNumaNodes(writer, sources.sys_root);
  WriteMemory(writer, sources.sys_root, sources.proc_root);
  WriteCgroup(writer, sources.proc_root, sources.cgroup_root);
  WriteCpus(writer, sources.sys_root);
  WriteMemlock(writer);
  return writer.Finish();
}

}  // namespace fpdt
