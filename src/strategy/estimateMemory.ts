/**
 * What a strategy needs, without building its whole schedule: rings, temporaries and who is alive with whom do not depend on the
 * number of chunks once there are a few, so what a candidate needs is found from a program with a few of the same size, and what is held
 * for the whole sequence is given its full size. The layout is then that of the full schedule.
 */
import { placeIn } from '../address/layout.js';
import { withSteps } from '../address/lifetimes.js';
import { type MemoryLedger, buildLedger, scheduleUse, type ScheduleUse } from '../memory/ledger.js';
import type { OpKind } from '../catalog/ops/index.js';
import type { ScratchFormula } from '../schedule/build.js';
import type { Tensor } from '../schedule/logical.js';
import type { Attribute, Range } from '../schedule/op.js';
import { placeTensors, toBuffer } from '../schedule/passes/place.js';
import { declareTensors, type PolicyContext, stepProgram, tilesOf } from '../schedule/policies/index.js';
import type { Program } from '../schedule/program.js';
import type { Strategy } from '../spec/strategy.js';
import { fewOf, withAllKeys } from './fewChunks.js';
import { type MemoryShape, memoryShape, type ShapedSection } from './memoryShape.js';
import { type Setting, policyContext, scratchFormula } from './setting.js';

/** The memory of a strategy, in time that does not grow with its number of chunks. */
export function estimateMemory(setting: Setting, strategy: Strategy): MemoryLedger {
  const context = policyContext(setting, strategy);
  const few = fewOf(strategy, setting.model);
  const small = { ...context, rangeChunks: few.rangeChunks, strategy: { ...strategy, numChunks: few.numChunks } };
  const program = stepProgram(context);
  const shape = memoryShape(setting, small, program);
  const sized: Sized = {
    setting,
    strategy,
    shape,
    tensors: tensorsOf(shape, context),
    train: { turns: program.turns },
    formula: withAllKeys(scratchFormula(setting), strategy, few),
  };
  return buildLedger({ ...setting, arenaBytes: arenaBytes(sized), use: useOf(sized) });
}

/** A shape with the sizes of a strategy. */
interface Sized {
  readonly setting: Setting;
  readonly strategy: Strategy;
  readonly shape: MemoryShape;
  readonly tensors: readonly Tensor[];
  readonly train: Program;
  readonly formula: ScratchFormula;
}

/** As declared for all chunks, and the rings that moveData added. */
function tensorsOf({ rings }: MemoryShape, context: PolicyContext): readonly Tensor[] {
  const { chunkTokens, localChunkTokens } = context.strategy;
  const toSize = (ring: Tensor): Tensor => ({ ...ring, chunkRows: ring.layout === 'local' ? localChunkTokens : chunkTokens });
  return [...declareTensors(context), ...rings.map(toSize)];
}

function arenaBytes(sized: Sized): Readonly<Record<string, number>> {
  const { setting, shape, tensors, train } = sized;
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const buffers = shape.names.map((name, id) => toBuffer(byName.get(name) as Tensor, id, setting.places));
  return placeIn(setting.pools, setting.places, buffers, withSteps(shape.calls, buffers, { train })).arenaBytes;
}

/** From the temporaries of ops with the sizes of the strategy, one of each that need alike. */
function useOf(sized: Sized): ScheduleUse {
  const { setting, strategy, shape, tensors, formula } = sized;
  const sections = shape.sections.map(({ section }) => section);
  const { toAccesses, buffers } = placeTensors({ tensors, sections }, setting.places);
  const tiles = tilesOf(strategy);
  // A shape may be that of other tiles.
  const tiled = (kind: OpKind, { heads }: Attribute = {}): Attribute | undefined =>
    heads === undefined ? tiles(kind) : { ...tiles(kind), heads };
  const opsOf = ({ section, streams, chunkTokens }: ShapedSection) => {
    const scale = strategy.chunkTokens / chunkTokens;
    return section.ops.map(({ kind, tokens, kv, attribute, ...views }, id) => {
      const reads = toAccesses(views.reads, section);
      const writes = toAccesses(views.writes, section);
      const accumulates = toAccesses(views.accumulates, section);
      const stream = streams[id] ?? '';
      const bare = { id, kind, stream, tokens: times(tokens, scale), reads, writes, accumulates };
      const op = kv === undefined ? bare : { ...bare, kv: times(kv, scale) };
      return { kind, stream, scratchBytes: formula(op, attribute?.mask === undefined ? tiled(kind, attribute) : attribute, buffers) };
    });
  };
  const placed = shape.sections.map((one) => ({ name: one.section.name, ops: opsOf(one) }));
  return scheduleUse({ sections: placed, programs: { train: sized.train } });
}

/** Whole chunks are as many tokens. */
function times({ start, end }: Range, scale: number): Range {
  return { start: Math.round(start * scale), end: Math.round(end * scale) };
}
