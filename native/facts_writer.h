// Facts as JSON text: a fact that is not known is null, and its reason stands under `unknown` by its path, e.g. `gpus.0.eccEnabled`.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fact.h"

namespace fpdt {

class FactsWriter {
 public:
  explicit FactsWriter(const std::string& kind);

  void OpenObject(const std::string& key) { Open(key, '{'); }
  void OpenArray(const std::string& key) { Open(key, '['); }
  // Elements of an array; their key is their place.
  void OpenElement() { Open(std::to_string(frames_.back().num_members), '{'); }
  void Close();

  template <typename T>
  void Member(const std::string& key, const Fact<T>& fact) {
    Key(key);
    if (fact) {
      Value(*fact);
    } else {
      text_ += "null";
      Unknown(key, fact.reason);
    }
  }

  template <typename T>
  void Member(const std::string& key, const T& value) {
    Key(key);
    Value(value);
  }

  // Why `key` of the open object, or all of it where `key` is empty, could not be had.
  void Unknown(const std::string& key, const std::string& reason);

  // Closes the facts and returns their text.
  std::string Finish();

 private:
  struct Frame {
    char bracket;
    std::string path;
    size_t num_members;
  };

  void Open(const std::string& key, char bracket);
  void Key(const std::string& key);
  void Value(const std::string& text);
  void Value(const char* text) { Value(std::string(text)); }
  void Value(double number);
  void Value(uint64_t number) { text_ += std::to_string(number); }
  void Value(int number) { text_ += std::to_string(number); }
  void Value(bool value) { text_ += value ? "true" : "false"; }
  void Value(const Limit& limit);
  void Value(const std::vector<std::string>& texts);
  std::string PathOf(const std::string& key) const;

  std::string text_;
  std::vector<Frame> frames_;
  std::map<std::string, std::string> unknown_;
};

}  // namespace fpdt
