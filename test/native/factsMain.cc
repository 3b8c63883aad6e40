// The addon's facts in a program of its own, to be built with sanitizers: factsMain NVML SYS PROC CGROUP prints them.
#include <cstdio>

#include "machine.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  std::puts(fpdt::MachineFacts({argv[1], argv[2], argv[3], argv[4]}).c_str());
  return 0;
}
