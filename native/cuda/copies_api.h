/* The copy engine for other languages: plain C, called through ctypes by python/fpdt/copies. */
#ifndef FPDT_COPIES_API_H
#define FPDT_COPIES_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every function that returns int returns 0, or -1, or -2 where the engine refuses work since something had failed before;
   fpdt_copies_error then says what, for the thread that asked. */
const char* fpdt_copies_error(void);

/* `device`: "threads", "null" or "cuda". `owned`: a bit for each stream whose copies the engine launches.
   `arenas`: address and bytes of each. `options`: for threads seed, probability of a sleep in millionths, the longest in microseconds
   and whether copies move bytes; for cuda the device's number, the addresses of the driver's functions in the order of DriverTable and
   the handle of each stream, -1 for those of the host. NULL where it cannot be made. */
void* fpdt_copies_open(const char* device, int32_t num_streams, uint32_t owned, const int64_t* arenas, int32_t num_arenas,
                       const int64_t* options, int32_t num_options);
void fpdt_copies_close(void* engine);

/* Rows as ProgramRows of copy_program.h has them. Returns the program's number, or -1. */
int32_t fpdt_copies_load(void* engine, const int64_t* header, const int64_t* ops, int64_t num_ops, const int64_t* waits, int64_t num_waits,
                         const int64_t* pieces, int64_t num_pieces);
int fpdt_copies_hide(void* engine, int32_t program, const uint8_t* hidden, int64_t num_ops);
int fpdt_copies_run(void* engine, int32_t program, const int64_t* args, int64_t num_args, const uint32_t* masks, uint32_t* bases);
int fpdt_copies_wait(void* engine, int64_t handle, int32_t stream, uint32_t position);
int fpdt_copies_write(void* engine, int64_t handle, int32_t stream, uint32_t position);
int fpdt_copies_join(void* engine);
int fpdt_copies_fail(void* engine, const char* reason);
int fpdt_copies_reset(void* engine, const int64_t* handles);

/* ops, pieces, batches, bytes and nanoseconds of the thread, since the start. */
int fpdt_copies_stats(void* engine, int32_t stream, uint64_t* stats);

#ifdef __cplusplus
}
#endif
#endif
