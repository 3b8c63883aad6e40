// The copies of a section, lowered once: what each queue does, in its order, with places that follow the arguments of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fpdt {

// A bit a stream in the masks of a call.
constexpr int32_t kMostStreams = 31;

// Bytes of a copy, of which no byte is in two arenas.
struct CopyPiece {
  char* dst;
  const char* src;
  std::size_t bytes;
};

struct Arena {
  char* base;
  int64_t bytes;
};

// Where a view begins in an arena: at `offset`, and by `instance_bytes` later for each 1 of the argument `param`; -1: of none.
struct Place {
  int32_t arena;
  int32_t param;
  int64_t offset;
  int64_t instance_bytes;
};

// `position` counts the ops of a stream in the section, from 1 on: one position is reached when that op, and all before it, are done.
struct ProgramWait {
  int32_t stream;
  uint32_t position;
};

struct ProgramPiece {
  Place dst;
  Place src;
  int64_t bytes;
};

// `signals`: somebody waits for its position.
struct ProgramOp {
  uint32_t position;
  int32_t hidden_bit;
  bool signals;
  uint32_t first_wait, end_wait;
  uint32_t first_piece, end_piece;
};

// Ops of one stream that the engine owns.
using ProgramQueue = std::vector<ProgramOp>;

struct CopyProgram {
  int32_t num_params = 0;
  // Ops of every stream, those of others included.
  std::vector<uint32_t> num_ops;
  std::vector<ProgramQueue> queues;
  std::vector<ProgramWait> waits;
  std::vector<ProgramPiece> pieces;
  int32_t num_hidden_bits = 0;
};

// A program as it is handed over: int64 rows, one array after the other.
//   header   num_params, num_ops of each stream
//   ops      stream, position, signals, waits, pieces            positions ascend on each stream
//   waits    stream, position                                     those of op 0 first
//   pieces   bytes, then of dst and of src: arena, param, offset, instance_bytes
struct ProgramRows {
  const int64_t* header;
  const int64_t* ops;
  std::size_t num_ops;
  const int64_t* waits;
  std::size_t num_waits;
  const int64_t* pieces;
  std::size_t num_pieces;
};
constexpr int kOpFields = 5, kWaitFields = 2, kPieceFields = 9;

// Throws std::invalid_argument for rows that no section can have. `owned`: a bit for each stream whose queue is the engine's.
std::shared_ptr<const CopyProgram> ReadProgram(const ProgramRows& rows, int32_t num_streams, uint32_t owned, int32_t num_arenas);

// Where a piece of a call lies. Throws std::out_of_range for one outside of its arenas.
CopyPiece Resolve(const ProgramPiece& piece, const int64_t* args, const std::vector<Arena>& arenas);

}  // namespace fpdt
