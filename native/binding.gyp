{
  "targets": [
    {
      "target_name": "fpdt",
      "sources": [
        "addon.cc",
        "cgroup.cc",
        "facts_writer.cc",
        "gpus.cc",
        "host.cc",
        "machine.cc",
        "nvml.cc",
        "replay.cc",
        "replay_binding.cc",
        "replay_check.cc",
        "shared_library.cc",
        "text_file.cc"
      ],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include\")"],
      "defines": ["NAPI_VERSION=8"],
      "cflags!": ["-fno-exceptions"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags_cc": ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror"],
      "xcode_settings": {
        "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
        "CLANG_CXX_LIBRARY": "libc++",
        "MACOSX_DEPLOYMENT_TARGET": "11.0"
      },
      "msvs_settings": { "VCCLCompilerTool": { "ExceptionHandling": 1 } }
    }
  ]
}
