#include "replay_binding.h"

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "replay.h"

namespace fpdt {

namespace {

template <typename T>
struct Element;
template <>
struct Element<int32_t> {
  using Array = Napi::Int32Array;
  static constexpr napi_typedarray_type kType = napi_int32_array;
  static constexpr const char* kName = "Int32Array";
};
template <>
struct Element<uint8_t> {
  using Array = Napi::Uint8Array;
  static constexpr napi_typedarray_type kType = napi_uint8_array;
  static constexpr const char* kName = "Uint8Array";
};

// What a thread reads while JavaScript goes on is copied here first: what that does to its arrays is its own affair.
struct Copies {
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<std::vector<int32_t>> numbers;

  Span<uint8_t> Keep(const Span<uint8_t>& values) { return Keep(bytes, values); }
  Span<int32_t> Keep(const Span<int32_t>& values) { return Keep(numbers, values); }

 private:
  template <typename T>
  static Span<T> Keep(std::vector<std::vector<T>>& kept, const Span<T>& values) {
    kept.emplace_back(values.data(), values.data() + values.size());
    return {kept.back().data(), kept.back().size()};
  }
};

// `copies`: none for arrays that are read before JavaScript goes on.
template <typename T>
void TakeArray(const Napi::Object& from, const char* key, Copies* copies, Span<T>& into) {
  const Napi::Value given = from.Get(key);
  if (!given.IsTypedArray() || given.As<Napi::TypedArray>().TypedArrayType() != Element<T>::kType)
    throw Napi::TypeError::New(from.Env(), std::string("replay: ") + key + " is no " + Element<T>::kName);
  const auto array = given.As<typename Element<T>::Array>();
  into = {array.Data(), array.ElementLength()};
  if (copies != nullptr) into = copies->Keep(into);
}

int32_t TakeCount(const Napi::Object& from, const char* key) {
  const Napi::Value given = from.Get(key);
  const double value = given.IsNumber() ? given.As<Napi::Number>().DoubleValue() : -1;
  if (!(value >= 0 && value <= INT32_MAX) || value != static_cast<double>(static_cast<int32_t>(value)))
    throw Napi::TypeError::New(from.Env(), std::string("replay: ") + key + " is no whole number of 31 bits");
  return static_cast<int32_t>(value);
}

ReplayColumns TakeColumns(const Napi::CallbackInfo& info, Copies* copies) {
  if (info.Length() != 1 || !info[0].IsObject()) throw Napi::TypeError::New(info.Env(), "replay: expects the columns of a section");
  const auto given = info[0].As<Napi::Object>();
  ReplayColumns columns;
  columns.num_streams = TakeCount(given, "numStreams");
  columns.num_cells = TakeCount(given, "numCells");
  TakeArray(given, "streams", copies, columns.streams);
  TakeArray(given, "waitOffsets", copies, columns.wait_offsets);
  TakeArray(given, "waits", copies, columns.waits);
  TakeArray(given, "firstRead", copies, columns.first_read);
  TakeArray(given, "firstWrite", copies, columns.first_write);
  TakeArray(given, "firstAccumulate", copies, columns.first_accumulate);
  TakeArray(given, "opViews", copies, columns.op_views);
  TakeArray(given, "viewSlot", copies, columns.view_slot);
  TakeArray(given, "viewLow", copies, columns.view_low);
  TakeArray(given, "viewHigh", copies, columns.view_high);
  TakeArray(given, "slotHasEntry", copies, columns.slot_has_entry);
  return columns;
}

template <typename T>
void GiveArray(Napi::Object& into, const char* key, const std::vector<T>& values) {
  auto array = Element<T>::Array::New(into.Env(), values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(T));
  into.Set(key, array);
}

Napi::Object GiveReplayed(Napi::Env env, const Replayed& replayed) {
  Napi::Object given = Napi::Object::New(env);
  given.Set("problemOp", replayed.problem_op);
  GiveArray(given, "toucher", replayed.toucher);
  GiveArray(given, "owner", replayed.owner);
  GiveArray(given, "entryReader", replayed.entry_reader);
  GiveArray(given, "lastRead", replayed.last_read);
  GiveArray(given, "lastChange", replayed.last_change);
  GiveArray(given, "firstRead", replayed.first_read);
  GiveArray(given, "firstChange", replayed.first_change);
  GiveArray(given, "sharedEntries", replayed.shared_entries);
  GiveArray(given, "phases", replayed.phases);
  GiveArray(given, "phaseOffsets", replayed.phase_offsets);
  GiveArray(given, "tailEntries", replayed.tail_entries);
  GiveArray(given, "tailOps", replayed.tail_ops);
  return given;
}

// replayCall(columns): Replayed
Napi::Value ReplayCall(const Napi::CallbackInfo& info) {
  const ReplayColumns columns = TakeColumns(info, nullptr);
  try {
    CheckColumns(columns);
    return GiveReplayed(info.Env(), Replay(columns, std::atomic<bool>(false)));
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::RangeError::New(info.Env(), error.what());
  }
}

using Flag = std::shared_ptr<std::atomic<bool>>;

class ReplayWorker : public Napi::AsyncWorker {
 public:
  ReplayWorker(const Napi::CallbackInfo& info, Flag cancelled)
      : Napi::AsyncWorker(info.Env()),
        deferred_(Napi::Promise::Deferred::New(info.Env())),
        columns_(TakeColumns(info, &copies_)),
        cancelled_(std::move(cancelled)) {}

  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  // On a thread of libuv's pool; what is thrown here becomes OnError.
  void Execute() override {
    CheckColumns(columns_);
    replayed_ = Replay(columns_, *cancelled_);
  }

  // Also where it was done before it was cancelled: whoever cancels has no result.
  void OnOK() override {
    if (cancelled_->load()) deferred_.Reject(Napi::Error::New(Env(), "replay: cancelled").Value());
    else deferred_.Resolve(GiveReplayed(Env(), replayed_));
  }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  Copies copies_;
  ReplayColumns columns_;
  Flag cancelled_;
  Replayed replayed_;
};

// startReplay(columns): { result: Promise<Replayed>, cancel(): void }
Napi::Value StartReplay(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  auto* worker = new ReplayWorker(info, cancelled);
  Napi::Object started = Napi::Object::New(env);
  started.Set("result", worker->Promise());
  started.Set("cancel", Napi::Function::New(env, [cancelled](const Napi::CallbackInfo&) { cancelled->store(true); }, "cancel"));
  // It deletes itself when done.
  worker->Queue();
  return started;
}

}  // namespace

void ExportReplay(Napi::Env env, Napi::Object exports) {
  exports.Set("replayCall", Napi::Function::New(env, ReplayCall));
  exports.Set("startReplay", Napi::Function::New(env, StartReplay));
}

}  // namespace fpdt
