// What the native addon exports. Texts and copies of arrays cross from JavaScript, no pointer does.
#include <napi.h>

#include <exception>
#include <string>

#include "machine.h"
#include "replay_binding.h"

namespace {

void TakeText(const Napi::Object& sources, const char* key, std::string& text) {
  const Napi::Value given = sources.Get(key);
  if (given.IsUndefined()) return;
  if (!given.IsString()) throw Napi::TypeError::New(sources.Env(), std::string("machineFacts: ") + key + " is no string");
  text = given.As<Napi::String>().Utf8Value();
}

// machineFacts(sources: { nvmlLibrary?, sysRoot?, procRoot?, cgroupRoot? }): string
Napi::Value MachineFacts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsObject()) throw Napi::TypeError::New(env, "machineFacts expects an object");
  const auto given = info[0].As<Napi::Object>();
  fpdt::FactSources sources;
  TakeText(given, "nvmlLibrary", sources.nvml_library);
  TakeText(given, "sysRoot", sources.sys_root);
  TakeText(given, "procRoot", sources.proc_root);
  TakeText(given, "cgroupRoot", sources.cgroup_root);
  try {
    return Napi::String::New(env, fpdt::MachineFacts(sources));
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("machineFacts", Napi::Function::New(env, MachineFacts));
  fpdt::ExportReplay(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(fpdt, Init)
