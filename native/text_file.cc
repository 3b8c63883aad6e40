#include "text_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace fpdt {

Fact<std::string> ReadText(const std::string& path) {
  const auto failed = [&] { return Fact<std::string>::Unknown("cannot read " + path + ": " + std::strerror(errno)); };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return failed();
  std::string text;
  char buffer[4096];
  ssize_t count;
  while ((count = read(file, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(count));
  auto found = count == 0 ? Fact<std::string>::Of(text) : failed();
  close(file);
  while (found && !(*found).empty() && (*found).back() == '\n') found.value->pop_back();
  return found;
}

Fact<double> ReadNumber(const std::string& path) {
  const auto text = ReadText(path);
  if (!text) return Fact<double>::Unknown(text.reason);
  return ParseNumber(*text, path);
}

Fact<double> FieldOf(const Fact<std::string>& text, const std::string& path, const std::string& field) {
  if (!text) return Fact<double>::Unknown(text.reason);
  for (const std::string& line : SplitLines(*text)) {
    // `Node 0 MemTotal:  1024 kB` in the files of a node.
    const size_t at = line.find(field + ':');
    if (at == std::string::npos || (at > 0 && line[at - 1] != ' ')) continue;
    std::istringstream words(line.substr(at + field.size() + 1));
    std::string number, unit;
    words >> number >> unit;
    auto found = ParseNumber(number, path + ", " + field);
    if (found && unit == "kB") *found.value *= 1024;
    return found;
  }
  return Fact<double>::Unknown(path + " has no " + field);
}

Fact<double> ParseNumber(const std::string& text, const std::string& what) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(number)) {
    return Fact<double>::Unknown(what + ": expected a number, found '" + text.substr(0, 40) + "'");
  }
  return Fact<double>::Of(number);
}

std::vector<std::string> SplitLines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace fpdt
