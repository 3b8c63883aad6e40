// A fact of this machine: its value or, in words, why it could not be had.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace fpdt {

template <typename T>
struct Fact {
  std::optional<T> value;
  std::string reason;

  static Fact Of(T value) { return {std::move(value), {}}; }
  static Fact Unknown(std::string reason) { return {std::nullopt, std::move(reason)}; }

  explicit operator bool() const { return value.has_value(); }
  const T& operator*() const { return *value; }
};

// A limit that the system may have left open.
struct Limit {
  bool is_unlimited = false;
  double value = 0;

  static Limit Unlimited() { return {true, 0}; }
  static Limit At(double value) { return {false, value}; }
};

}  // namespace fpdt
