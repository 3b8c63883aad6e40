/**
 * What a strategy needs, without building its whole schedule: rings and temporaries do not depend on the number of chunks once
 * there are a few, so a candidate with many chunks is built with FEW_CHUNKS of the same size, and what is held for the whole
 * sequence is scaled up. The layout is then as exact as that of the full schedule.
 */
import { parameterTable, scratchFormula } from '../catalog/index.js';
import type { Strategy } from '../chunk/strategy.js';
import { type MemoryLedger, buildLedger } from '../memory/ledger.js';
import type { Buffer } from '../schedule/buffer.js';
import { type BuiltSchedule, type ScratchFormula, buildSchedule } from '../schedule/build.js';
import { withChunks } from '../spec/sizes.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, RunSpec } from '../spec/types.js';
import { type Layout, layoutBuffers } from './layout.js';

/** More than any ring has slots: a buffer with this many chunks is one for the whole sequence. */
const FEW_CHUNKS = 12;

export interface BuildInput {
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: DeepSpeedConfig;
}

export interface Built extends BuiltSchedule {
  readonly layout: Layout;
  readonly memory: MemoryLedger;
}

/** The schedule of a strategy, its addresses and its memory. */
export function buildStrategy(input: BuildInput, strategy: Strategy): Built {
  const context = contextOf(input, strategy);
  const built = buildSchedule(context, scratchFormula(context.model, context.run, context.parameters, context.cluster.device));
  return { ...built, ...placed(context, built) };
}

/** The memory of a strategy, in time that does not grow with its number of chunks. */
export function estimateMemory(input: BuildInput, strategy: Strategy, FEW_CHUNKS = 12): MemoryLedger {
  if (strategy.numChunks <= FEW_CHUNKS) return buildStrategy(input, strategy).memory;
  const context = contextOf(input, strategy);
  const few = { ...context, strategy: { ...strategy, numChunks: FEW_CHUNKS } };
  const formula = scratchFormula(context.model, context.run, context.parameters, context.cluster.device);
  const longest = (strategy.numChunks - 1) * strategy.chunkTokens;
  const scratch: ScratchFormula = (op, buffers) =>
    formula(
      op.kv !== undefined && op.kv.end - op.kv.start > strategy.chunkTokens ? { ...op, kv: { start: 0, end: longest } } : op,
      buffers,
    );
  const built = buildSchedule(few, scratch);
  const buffers = built.buffers.map((buffer) => stretch(buffer, strategy, FEW_CHUNKS));
  return placed(context, { ...built, buffers }).memory;
}

function contextOf(input: BuildInput, strategy: Strategy) {
  return { ...input, strategy, run: withChunks(input.run, strategy.numChunks), parameters: parameterTable(input.model) };
}

/** A buffer for FEW_CHUNKS chunks becomes one for all of them; rings and weight gradients stay. */
function stretch(buffer: Buffer, { numChunks, chunkTokens, localChunkTokens }: Strategy, FEW_CHUNKS: number): Buffer {
  const rows = buffer.shape[0] ?? 0;
  const isWhole = buffer.shape.length > 1 || buffer.dtype === 'int64' || buffer.name.startsWith('lse');
  if (!isWhole || (rows !== FEW_CHUNKS * chunkTokens && rows !== FEW_CHUNKS * localChunkTokens)) return buffer;
  const perChunk = (count: number): number => (count / FEW_CHUNKS) * numChunks;
  return { ...buffer, shape: [perChunk(rows), ...buffer.shape.slice(1)], instanceBytes: perChunk(buffer.instanceBytes) };
}

function placed(context: ReturnType<typeof contextOf>, { buffers, schedule }: BuiltSchedule): Pick<Built, 'layout' | 'memory'> {
  const layout = layoutBuffers(buffers, schedule);
  const scratch = Object.fromEntries(
    Object.values(schedule).map(({ name, ops }) => [name, ops.reduce((most, { scratchBytes }) => Math.max(most, scratchBytes), 0)]),
  );
  return { layout, memory: buildLedger({ ...context, arenas: layout.arenas, scratch }) };
}
