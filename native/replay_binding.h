// replayCall and startReplay for JavaScript.
#pragma once

#include <napi.h>

namespace fpdt {

void ExportReplay(Napi::Env env, Napi::Object exports);

}  // namespace fpdt
