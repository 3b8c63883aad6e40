/** Small programs by hand: ops with the seconds they take, sections of them, and calls. */
import type { OpKind } from '../../src/catalog/ops/index.js';
import type { OpCosts } from '../../src/predict/cost.js';
import type { Device } from '../../src/predict/device.js';
import { toArrays } from '../../src/predict/sectionArrays.js';
import type { SimulateInput } from '../../src/predict/simulate.js';
import type { ZeroCosts } from '../../src/predict/zeroCosts.js';
import type { Op, Section } from '../../src/schedule/op.js';
import type { Call, Turn } from '../../src/schedule/program.js';

export const STREAMS = ['compute', 'comm', 'h2d', 'd2h'];
export const FULL_MASK = (1 << STREAMS.length) - 1;

/** An op with what it takes. */
export interface TimedOp {
  readonly stream: number;
  readonly seconds: number;
  readonly host?: number;
  /** Ids of earlier ops. */
  readonly waits?: readonly number[];
}

export interface TimedSection {
  readonly name: string;
  readonly ops: readonly TimedOp[];
}

export interface TimedCall {
  readonly section: string;
  readonly waits?: readonly number[];
}

/** One turn of a layer; ZeRO's calls first and last. */
export interface TimedTurn {
  readonly calls: readonly TimedCall[];
  readonly gatherSeconds?: number;
  readonly reduceSeconds?: number;
}

export interface TimedProgram {
  readonly sections: readonly TimedSection[];
  readonly turns: readonly TimedTurn[];
  readonly device: Device;
  /** Whether ZeRO works beside the turns. */
  readonly beside?: boolean;
}

const KIND_OF_STREAM: readonly OpKind[] = ['post', 'toHeads', 'copy', 'copy'];

function sectionOf({ name, ops }: TimedSection): Section {
  return { name, params: [], ops: ops.map(opOf) };
}

function opOf({ stream, waits = [] }: TimedOp, id: number): Op {
  return {
    id,
    kind: KIND_OF_STREAM[stream] ?? 'post',
    stream: STREAMS[stream] ?? '',
    tokens: { start: 0, end: 1 },
    reads: [],
    writes: [],
    accumulates: [],
    waits,
    scratchBytes: 0,
  };
}

export function costsOf({ ops }: TimedSection): OpCosts {
  return ({ id }) => ({
    seconds: ops[id]?.seconds ?? 0,
    hostSeconds: ops[id]?.host ?? 0,
    attentionFlops: 0,
    otherFlops: 0,
    copiedBytes: 0,
  });
}

function callOf({ section, waits = [] }: TimedCall): Call {
  return { section, args: [], owner: 'plan', waits };
}

/** The simulator's input of a program; every turn is a layer's, its number tells ZeRO's costs. */
export function inputOf({ sections, turns, device, beside = false }: TimedProgram, free: SimulateInput['free'] = {}): SimulateInput {
  const zeroCall = (section: string): Call => ({ section, args: [], owner: 'zero', waits: [] });
  const built = turns.map(
    ({ calls, gatherSeconds, reduceSeconds }, layer): Turn => ({
      module: 'layer',
      layer,
      direction: 'forward',
      calls: [
        ...(gatherSeconds === undefined ? [] : [zeroCall('gather')]),
        ...calls.map(callOf),
        ...(reduceSeconds === undefined ? [] : [zeroCall('reduce')]),
      ],
    }),
  );
  const zero: ZeroCosts = {
    seconds: (kind, turn) => {
      const timed = turns[(turn as Turn).layer ?? 0];
      return (kind === 'gather' ? timed?.gatherSeconds : timed?.reduceSeconds) ?? 0;
    },
    overlaps: () => beside,
  };
  return {
    program: { turns: built },
    sections: new Map(sections.map((section) => [section.name, toArrays(sectionOf(section), STREAMS, costsOf(section))])),
    numStreams: STREAMS.length,
    device,
    zero,
    external: new Map((['gather', 'reduce'] as const).map((kind) => [kind, [{ kind, stream: 1 }]])),
    free,
  };
}
