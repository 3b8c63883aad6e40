// A library opened while running, so that the addon loads where it is not installed.
#pragma once

#include <string>

namespace fpdt {

class SharedLibrary {
 public:
  explicit SharedLibrary(const std::string& name);
  ~SharedLibrary();
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;

  bool is_open() const { return handle_ != nullptr; }
  const std::string& name() const { return name_; }
  // Why the library did not open.
  const std::string& reason() const { return reason_; }

  // Null where the library has no such symbol.
  template <typename Function>
  Function* Find(const char* symbol) const {
    return reinterpret_cast<Function*>(FindAddress(symbol));
  }

 private:
  void* FindAddress(const char* symbol) const;

  std::string name_;
  std::string reason_;
  void* handle_;
};

}  // namespace fpdt
