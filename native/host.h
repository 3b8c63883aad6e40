// Facts of the host: memory, NUMA nodes, CPUs, and the limits that this process has. Read from sysfs, procfs and cgroupfs below given roots.
#pragma once

#include <string>

#include "facts_writer.h"

namespace fpdt {

void WriteMemory(FactsWriter& writer, const std::string& sys_root, const std::string& proc_root);
void WriteNumaNodes(FactsWriter& writer, const std::string& sys_root);
void WriteCpus(FactsWriter& writer, const std::string& sys_root);
void WriteMemlock(FactsWriter& writer);

}  // namespace fpdt
