/**
 * What a strategy needs, without building its whole schedule: rings, temporaries and who is alive with whom do not depend on the
 * number of chunks once there are a few, so a candidate with many chunks is built with a few of the same size, and what is held for
 * the whole sequence is given its full size. The layout is then that of the full schedule.
 */
import { parameterTable, scratchFormula } from '../catalog/index.js';
import type { Strategy } from '../chunk/strategy.js';
import { type MemoryLedger, buildLedger } from '../memory/ledger.js';
import { type BuiltSchedule, type ScratchFormula, buildSchedule } from '../schedule/build.js';
import type { Buffer } from '../schedule/buffer.js';
import { toBuffer } from '../schedule/passes/place.js';
import { declareTensors } from '../schedule/policies/index.js';
import { withChunks } from '../spec/sizes.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, RunSpec } from '../spec/types.js';
import { type Layout, layoutBuffers } from './layout.js';

/**
 * Chunks of one tensor that are in use at once, at most: of the layer inputs three, since pre runs a chunk ahead of attention and
 * post a chunk behind it, and the output that post writes. A ring has this many slots and prefetchDepth - 1 more.
 */
const MOST_IN_USE = 4;

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
export function estimateMemory(input: BuildInput, strategy: Strategy): MemoryLedger {
  const numChunks = fewChunks(strategy);
  if (strategy.numChunks <= numChunks) return buildStrategy(input, strategy).memory;
  const context = contextOf(input, strategy);
  const few = { ...context, strategy: { ...strategy, numChunks } };
  const formula = scratchFormula(context.model, context.run, context.parameters, context.cluster.device);
  const longest = (strategy.numChunks - 1) * strategy.chunkTokens;
  const scratch: ScratchFormula = (op, buffers) =>
    formula(
      op.kv !== undefined && op.kv.end - op.kv.start > strategy.chunkTokens ? { ...op, kv: { start: 0, end: longest } } : op,
      buffers,
    );
  const built = buildSchedule(few, scratch);
  return placed(context, { ...built, buffers: built.buffers.map(toFullSize(context)) }).memory;
}

/** One more than the longest ring has slots, so that every ring has its full length and comes around. */
function fewChunks({ prefetchDepth }: Strategy): number {
  return MOST_IN_USE + prefetchDepth;
}

type Context = ReturnType<typeof contextOf>;

function contextOf(input: BuildInput, strategy: Strategy) {
  return { ...input, strategy, run: withChunks(input.run, strategy.numChunks), parameters: parameterTable(input.model) };
}

/** A buffer as the full schedule has it: tensors as declared for all chunks; the rings that moveData added stay. */
function toFullSize(context: Context): (buffer: Buffer) => Buffer {
  const declared = new Map(declareTensors(context).map((tensor) => [tensor.name, tensor]));
  return (buffer) => {
    const tensor = declared.get(buffer.name);
    return tensor === undefined ? buffer : toBuffer(tensor, buffer.id, new Set(buffer.sections));
  };
}

function placed(context: Context, { buffers, schedule }: BuiltSchedule): Pick<Built, 'layout' | 'memory'> {
  const layout = layoutBuffers(buffers, schedule);
  const scratch = Object.fromEntries(
    Object.values(schedule).map(({ name, ops }) => [name, ops.reduce((most, { scratchBytes }) => Math.max(most, scratchBytes), 0)]),
  );
  return { layout, memory: buildLedger({ ...context, arenas: layout.arenas, scratch }) };
}
