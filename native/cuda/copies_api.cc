#include "copies_api.h"

#include <cstring>
#include <string>

#include "copy_engine.h"
#include "cuda_device.h"
#include "null_device.h"
#include "thread_device.h"

namespace {

using fpdt::CopyEngine;

thread_local std::string last_error;

CopyEngine* EngineOf(void* engine) { return static_cast<CopyEngine*>(engine); }

// No exception leaves the library.
template <typename Work>
int Guard(Work work) {
  try {
    work();
    return 0;
  } catch (const fpdt::EngineError& error) {
    last_error = error.what();
    return -2;
  } catch (const std::exception& error) {
    last_error = error.what();
    return -1;
  }
}

std::unique_ptr<fpdt::CopyDevice> MakeDevice(const std::string& name, int32_t num_streams, uint32_t owned, const int64_t* options,
                                             int32_t num_options) {
  if (name == "null" && num_options == 0) return std::make_unique<fpdt::NullDevice>();
  if (name == "threads" && num_options == 4) {
    fpdt::ThreadDeviceOptions found;
    found.seed = static_cast<uint64_t>(options[0]);
    found.probability = static_cast<double>(options[1]) / 1e6;
    found.most_microseconds = static_cast<uint32_t>(options[2]);
    found.moves = options[3] != 0;
    return std::make_unique<fpdt::ThreadDevice>(num_streams, found);
  }
  if (name == "cuda" && num_options == 1 + fpdt::kNumDriverFunctions + num_streams)
    return fpdt::MakeCudaDevice(static_cast<int>(options[0]), options + 1, num_streams, owned, options + 1 + fpdt::kNumDriverFunctions);
  throw std::invalid_argument("this library has no device " + name + " with " + std::to_string(num_options) + " options");
}

}  // namespace

const char* fpdt_copies_error() { return last_error.c_str(); }

void* fpdt_copies_open(const char* device, int32_t num_streams, uint32_t owned, const int64_t* arenas, int32_t num_arenas,
                       const int64_t* options, int32_t num_options) {
  CopyEngine* made = nullptr;
  Guard([&] {
    std::vector<fpdt::Arena> found;
    for (int32_t i = 0; i < num_arenas; i++) found.push_back({reinterpret_cast<char*>(arenas[2 * i]), arenas[2 * i + 1]});
    made = new CopyEngine(MakeDevice(device, num_streams, owned, options, num_options), std::move(found), num_streams, owned);
  });
  return made;
}

void fpdt_copies_close(void* engine) { delete EngineOf(engine); }

int32_t fpdt_copies_load(void* engine, const int64_t* header, const int64_t* ops, int64_t num_ops, const int64_t* waits, int64_t num_waits,
                         const int64_t* pieces, int64_t num_pieces) {
  int32_t number = -1;
  const auto size = [](int64_t count) { return static_cast<std::size_t>(count); };
  Guard([&] { number = EngineOf(engine)->Load({header, ops, size(num_ops), waits, size(num_waits), pieces, size(num_pieces)}); });
  return number;
}

int fpdt_copies_hide(void* engine, int32_t program, const uint8_t* hidden, int64_t num_ops) {
  return Guard([&] { EngineOf(engine)->Hide(program, fpdt::Hidden(hidden, hidden + num_ops)); });
}

int fpdt_copies_run(void* engine, int32_t program, const int64_t* args, int64_t num_args, const uint32_t* masks, uint32_t* bases) {
  return Guard([&] { EngineOf(engine)->Run(program, args, static_cast<std::size_t>(num_args), masks, bases); });
}

int fpdt_copies_wait(void* engine, int64_t handle, int32_t stream, uint32_t position) {
  return Guard([&] { EngineOf(engine)->WaitOn(handle, stream, position); });
}

int fpdt_copies_write(void* engine, int64_t handle, int32_t stream, uint32_t position) {
  return Guard([&] { EngineOf(engine)->WriteOn(handle, stream, position); });
}

int fpdt_copies_join(void* engine) {
  return Guard([&] { EngineOf(engine)->Join(); });
}

int fpdt_copies_fail(void* engine, const char* reason) {
  return Guard([&] { EngineOf(engine)->Fail(reason); });
}

int fpdt_copies_reset(void* engine, const int64_t* handles) {
  CopyEngine* found = EngineOf(engine);
  return Guard([&] { found->Reset(std::vector<int64_t>(handles, handles + found->num_streams())); });
}

int fpdt_copies_stats(void* engine, int32_t stream, uint64_t* stats) {
  return Guard([&] {
    const fpdt::QueueStats found = EngineOf(engine)->StatsOf(stream);
    std::memcpy(stats, &found, sizeof found);
  });
}
