// Small files of sysfs, procfs and cgroupfs.
#pragma once

#include <string>
#include <vector>

#include "fact.h"

namespace fpdt {

// The text without its last line end; the reason names the file.
Fact<std::string> ReadText(const std::string& path);

// The whole number that a file holds.
Fact<double> ReadNumber(const std::string& path);

// The bytes of a line `MemTotal:  1024 kB` of a file like /proc/meminfo, or the count of one without a unit.
Fact<double> FieldOf(const Fact<std::string>& text, const std::string& path, const std::string& field);

// A decimal number with nothing after it, `what` naming it in the reason.
Fact<double> ParseNumber(const std::string& text, const std::string& what);

std::vector<std::string> SplitLines(const std::string& text);

}  // namespace fpdt
