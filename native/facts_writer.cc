#include "facts_writer.h"

#include <cstdio>

namespace fpdt {
namespace {

// Bytes beyond ASCII come from drivers and files in no known encoding: each becomes the code point of its number.
std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte == '"' || byte == '\\') {
      quoted += '\\';
      quoted += letter;
    } else if (byte < 0x20 || byte >= 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      quoted += escape;
    } else {
      quoted += letter;
    }
  }
  return quoted + '"';
}

}  // namespace

FactsWriter::FactsWriter(const std::string& kind) : text_("{"), frames_{{'{', "", 0}} { Member("kind", kind); }

void FactsWriter::Close() {
  text_ += frames_.back().bracket == '{' ? '}' : ']';
  frames_.pop_back();
}

void FactsWriter::Unknown(const std::string& key, const std::string& reason) {
  unknown_[key.empty() ? frames_.back().path : PathOf(key)] = reason;
}

std::string FactsWriter::Finish() {
  OpenObject("unknown");
  for (const auto& [path, reason] : unknown_) Member(path, reason);
  Close();
  Close();
  return text_;
}

void FactsWriter::Open(const std::string& key, char bracket) {
  Key(key);
  text_ += bracket;
  frames_.push_back({bracket, PathOf(key), 0});
}

void FactsWriter::Key(const std::string& key) {
  Frame& frame = frames_.back();
  if (frame.num_members++ > 0) text_ += ',';
  if (frame.bracket == '{') text_ += Quoted(key) + ':';
}

void FactsWriter::Value(const std::string& text) { text_ += Quoted(text); }

void FactsWriter::Value(double number) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.17g", number);
  text_ += digits;
}

void FactsWriter::Value(const Limit& limit) {
  if (limit.is_unlimited) {
    Value("unlimited");
  } else {
    Value(limit.value);
  }
}

void FactsWriter::Value(const std::vector<std::string>& texts) {
  text_ += '[';
  for (size_t i = 0; i < texts.size(); ++i) text_ += (i > 0 ? "," : "") + Quoted(texts[i]);
  text_ += ']';
}

std::string FactsWriter::PathOf(const std::string& key) const {
  const std::string& path = frames_.back().path;
  return path.empty() ? key : path + '.' + key;
}

}  // namespace fpdt
