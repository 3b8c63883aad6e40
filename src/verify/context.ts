/** What all checks look up: numbers in place of names, and one address space for all pools. */
import { OP_ROWS, type OpRow, rowBytes } from '../catalog/ops/index.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Schedule } from '../schedule/schedule.js';
import type { LayerParameters, ParameterTable, ParameterView, RunSpec } from '../spec/types.js';
import type { Violations } from './violation.js';

/** Sizes, in elements, of the regions that weight gradients are summed in, and what of the embedding trains; see the parameter table. */
export interface WeightRegions extends Pick<ParameterTable, 'numHeadNormElements' | 'numHeadElements' | 'numEmbedElements'> {
  readonly layers: readonly Pick<LayerParameters, 'numElements'>[];
  readonly embed: readonly Pick<ParameterView, 'trainable'>[];
}

export interface VerifyInput extends Schedule {
  readonly numLayers: number;
  readonly parameters: WeightRegions;
  /** By layer the number of its weights in `parameters.layers`. */
  readonly classOf: readonly number[];
  /** lm_head is the embedding. */
  readonly tied: boolean;
  /** Per layer its sliding window in tokens, or null; absent: what the masks of its sections say is believed. */
  readonly windows?: readonly (number | null)[];
  /** Whether documents may leave ops out; absent: they may not. */
  readonly run?: Pick<RunSpec, 'packing'>;
  /** The program is one that evaluates: it goes forward alone. */
  readonly evaluates?: boolean;
  /** The device completes compute at the end of every turn, as a CPU does: what needs no more is legal there. */
  readonly joinsCompute?: boolean;
}

export interface Context {
  readonly input: VerifyInput;
  readonly violations: Violations;
  readonly numStreams: number;
  readonly streamNumbers: ReadonlyMap<string, number>;
  readonly numPools: number;
  /** Number of the device pool. */
  readonly device: number;
  /** By buffer the number of its pool. */
  readonly poolOf: Int32Array;
  /** By buffer: bytes of a row. */
  readonly rowBytes: Float64Array;
  /** By buffer: byte address of instance 0, where the arenas of all pools follow one another. */
  readonly base: Float64Array;
  /** Number of the stream of copies from pool to pool, row-major; -1 where no link leads. */
  readonly linkStream: Int32Array;
}

/** Looks up what it can: names that are not there become -1, for checkFrame to find. */
export function contextOf(input: VerifyInput, violations: Violations): Context {
  const { pools, links, streams, buffers } = input;
  const streamNumbers = new Map(streams.map((name, number) => [name, number] as const));
  const poolNumbers = new Map(pools.map(({ name }, number) => [name, number] as const));
  const poolOf = Int32Array.from(buffers, ({ pool }) => poolNumbers.get(pool) ?? -1);
  const arenas = arenaStarts(input);
  const linkStream = new Int32Array(pools.length * pools.length).fill(-1);
  for (const { from, to, stream } of links) {
    const [source, target] = [poolNumbers.get(from), poolNumbers.get(to)];
    if (source !== undefined && target !== undefined) linkStream[source * pools.length + target] = streamNumbers.get(stream) ?? -1;
  }
  return {
    input,
    violations,
    numStreams: streams.length,
    streamNumbers,
    numPools: pools.length,
    device: pools.findIndex(({ kind }) => kind === 'device'),
    poolOf,
    rowBytes: Float64Array.from(buffers, rowBytes),
    base: Float64Array.from(buffers, ({ offset }, id) => (arenas[poolOf[id] ?? -1] ?? 0) + offset),
    linkStream,
  };
}

function arenaStarts({ pools }: VerifyInput): readonly number[] {
  let end = 0;
  return pools.map(({ bytes }) => {
    const start = end;
    end += bytes;
    return start;
  });
}

/** The row of a kind; undefined for a kind that is not in the table. */
export function rowOf(kind: string): OpRow | undefined {
  return ROWS.get(kind);
}
const ROWS: ReadonlyMap<string, OpRow> = new Map(Object.entries(OP_ROWS));

/** A buffer that was checked to be there. */
export function bufferAt({ input }: Context, id: number): Buffer {
  return input.buffers[id] as Buffer;
}
