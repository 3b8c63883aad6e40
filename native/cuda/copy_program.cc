#include "copy_program.h"

#include <stdexcept>
#include <string>

namespace fpdt {

namespace {

[[noreturn]] void Refuse(const std::string& what) { throw std::invalid_argument("copy program: " + what); }

int64_t Within(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most)
    Refuse(std::string(name) + " cannot be " + std::to_string(value) + ", expected " + std::to_string(least) + " to " + std::to_string(most));
  return value;
}

constexpr int64_t kMost = INT64_MAX / 4;
constexpr int64_t kMostOps = INT32_MAX;

Place ReadPlace(const int64_t* row, int32_t num_arenas, int32_t num_params) {
  Place place{};
  place.arena = static_cast<int32_t>(Within("arena", row[0], 0, num_arenas - 1));
  place.param = static_cast<int32_t>(Within("param", row[1], -1, num_params - 1));
  place.offset = Within("offset", row[2], 0, kMost);
  place.instance_bytes = Within("instanceBytes", row[3], 0, kMost);
  return place;
}

char* AddressOf(const Place& place, int64_t bytes, const int64_t* args, const std::vector<Arena>& arenas) {
  const Arena& arena = arenas[static_cast<std::size_t>(place.arena)];
  int64_t first = place.offset, moved = 0;
  const int64_t instance = place.param < 0 ? 0 : args[place.param];
  const bool overflows = __builtin_mul_overflow(instance, place.instance_bytes, &moved) || __builtin_add_overflow(first, moved, &first);
  if (overflows || first < 0 || first > arena.bytes || bytes > arena.bytes - first)
    throw std::out_of_range("a copy of " + std::to_string(bytes) + " bytes at " + std::to_string(first) + " is not in arena " +
                            std::to_string(place.arena) + " of " + std::to_string(arena.bytes) + " bytes");
  return arena.base + first;
}

}  // namespace

std::shared_ptr<const CopyProgram> ReadProgram(const ProgramRows& rows, int32_t num_streams, uint32_t owned, int32_t num_arenas) {
  auto program = std::make_shared<CopyProgram>();
  program->num_params = static_cast<int32_t>(Within("numParams", rows.header[0], 0, INT32_MAX));
  program->queues.resize(static_cast<std::size_t>(num_streams));
  for (int32_t s = 0; s < num_streams; s++)
    program->num_ops.push_back(static_cast<uint32_t>(Within("numOps", rows.header[1 + s], 0, kMostOps)));
  std::size_t wait = 0, piece = 0;
  for (std::size_t i = 0; i < rows.num_ops; i++) {
    const int64_t* row = rows.ops + i * kOpFields;
    const auto stream = static_cast<std::size_t>(Within("stream of an op", row[0], 0, num_streams - 1));
    if ((owned >> stream & 1) == 0) Refuse("op " + std::to_string(i) + " is on stream " + std::to_string(stream) + ", which has no queue");
    ProgramQueue& queue = program->queues[stream];
    const int64_t after = queue.empty() ? 0 : queue.back().position;
    ProgramOp op{};
    op.position = static_cast<uint32_t>(Within("position of an op", row[1], after + 1, program->num_ops[stream]));
    op.hidden_bit = static_cast<int32_t>(i);
    op.signals = Within("signals", row[2], 0, 1) == 1;
    op.first_wait = static_cast<uint32_t>(wait);
    wait += static_cast<std::size_t>(Within("waits", row[3], 0, static_cast<int64_t>(rows.num_waits - wait)));
    op.end_wait = static_cast<uint32_t>(wait);
    op.first_piece = static_cast<uint32_t>(piece);
    piece += static_cast<std::size_t>(Within("pieces", row[4], 0, static_cast<int64_t>(rows.num_pieces - piece)));
    op.end_piece = static_cast<uint32_t>(piece);
    queue.push_back(op);
  }
  if (wait != rows.num_waits || piece != rows.num_pieces) Refuse("there are waits or pieces that no op has");
  for (std::size_t i = 0; i < rows.num_waits; i++) {
    const int64_t* row = rows.waits + i * kWaitFields;
    const auto stream = static_cast<int32_t>(Within("stream of a wait", row[0], 0, num_streams - 1));
    const int64_t most = program->num_ops[static_cast<std::size_t>(stream)];
    program->waits.push_back({stream, static_cast<uint32_t>(Within("position of a wait", row[1], 1, most))});
  }
  for (std::size_t i = 0; i < rows.num_pieces; i++) {
    const int64_t* row = rows.pieces + i * kPieceFields;
    const int64_t bytes = Within("bytes", row[0], 1, kMost);
    program->pieces.push_back(
        {ReadPlace(row + 1, num_arenas, program->num_params), ReadPlace(row + 5, num_arenas, program->num_params), bytes});
  }
  program->num_hidden_bits = static_cast<int32_t>(rows.num_ops);
  return program;
}

CopyPiece Resolve(const ProgramPiece& piece, const int64_t* args, const std::vector<Arena>& arenas) {
  return {AddressOf(piece.dst, piece.bytes, args, arenas), AddressOf(piece.src, piece.bytes, args, arenas),
          static_cast<std::size_t>(piece.bytes)};
}

}  // namespace fpdt
