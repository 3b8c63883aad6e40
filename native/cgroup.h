// What the control group of this process may use, in either version of cgroups.
#pragma once

#include <string>

#include "facts_writer.h"

namespace fpdt {

void WriteCgroup(FactsWriter& writer, const std::string& proc_root, const std::string& cgroup_root);

}  // namespace fpdt
