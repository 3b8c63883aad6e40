// Facts of the GPUs: what NVML says of each, and where on the PCIe bus and in which NUMA node sysfs has it.
#pragma once

#include <string>

#include "facts_writer.h"

namespace fpdt {

// The GPUs that answer; why there are none, or fewer than the driver counts, stands as the reason of all.
void WriteGpus(FactsWriter& writer, const std::string& nvml_library, const std::string& sys_root);

}  // namespace fpdt
