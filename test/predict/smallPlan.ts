/** A small schedule by hand, of the shape that the planner writes: two chunks of attention, checkpoints on the host, ZeRO's calls. */
import { parameterTable } from '../../src/catalog/index.js';
import { defaultKernels } from '../../src/catalog/kernels.js';
import { OP_ROWS, type OpKind } from '../../src/catalog/ops/index.js';
import { linksOf, poolsOf, streamsOf } from '../../src/catalog/pools.js';
import type { PredictInput } from '../../src/predict/predict.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import type { Call, Turn } from '../../src/schedule/program.js';
import type { Dtype } from '../../src/spec/dtype.js';
import { evenLayout } from '../catalog/opSamples.js';
import { type Bend, specs } from '../spec/inputs.js';

const ROWS = 256;

/** Name, pool, dtype, shape, scope. A rank has 256 rows; head-sharded views all 1,024 tokens of the sequence. */
const BUFFERS: readonly (readonly [string, string, Dtype, readonly number[], Buffer['scope']])[] = [
  ['tokenIds', 'hbm', 'int64', [ROWS], 'step'],
  ['positions', 'hbm', 'int64', [ROWS], 'step'],
  ['x', 'host', 'float32', [ROWS, 64], 'step'],
  ['x.staged', 'hbm', 'float32', [ROWS, 64], 'call'],
  ['y', 'hbm', 'float32', [ROWS, 64], 'call'],
  ['qLocal', 'hbm', 'float32', [ROWS, 8, 8], 'call'],
  ['q', 'hbm', 'float32', [4 * ROWS, 2, 8], 'call'],
  ['o', 'hbm', 'float32', [4 * ROWS, 2, 8], 'call'],
  ['oLocal', 'hbm', 'float32', [ROWS, 8, 8], 'call'],
  ['dx', 'hbm', 'float32', [ROWS, 64], 'step'],
  ['wgrad', 'hbm', 'float32', [100_000], 'call'],
];
const NAMES = BUFFERS.map(([name]) => name);

const buffers: readonly Buffer[] = BUFFERS.map(([name, pool, dtype, shape, scope], id) => ({
  id,
  name,
  pool,
  dtype,
  shape,
  strides: shape.map(() => 1),
  instances: 1,
  instanceBytes: shape.reduce((product, size) => product * size, dtype === 'int64' ? 8 : 4),
  offset: 0,
  scope,
}));

function access(name: string): Access {
  const buffer = NAMES.indexOf(name);
  return { buffer, rows: { start: 0, end: buffers[buffer]?.shape[0] ?? 0 }, param: -1, index: 0 };
}

interface Written {
  readonly kind: OpKind;
  readonly reads?: string;
  readonly writes?: string;
  readonly accumulates?: string;
  readonly waits?: readonly number[];
  readonly stream?: string;
  readonly scratchBytes?: number;
}

function section(name: string, ...ops: readonly Written[]): Section {
  const views = (names: string | undefined): readonly Access[] => (names === undefined ? [] : names.split(' ').map(access));
  return {
    name,
    params: [],
    ops: ops.map(
      ({ kind, reads, writes, accumulates, waits = [], stream = OP_ROWS[kind].stream, scratchBytes = 0 }, id): Op => ({
        id,
        kind,
        stream,
        tokens: { start: 0, end: 4 * ROWS },
        kv: { start: 0, end: 4 * ROWS },
        reads: views(reads),
        writes: views(writes),
        accumulates: views(accumulates),
        waits,
        scratchBytes,
      }),
    ),
  };
}

const SECTIONS: readonly Section[] = [
  section(
    'embedForward',
    { kind: 'loadBatch', writes: 'tokenIds positions' },
    { kind: 'embed', reads: 'tokenIds positions', writes: 'x.staged' },
  ),
  section(
    'layerForward',
    { kind: 'copy', stream: 'h2d', reads: 'x', writes: 'x.staged' },
    { kind: 'pre', reads: 'x.staged', writes: 'qLocal', waits: [0], scratchBytes: 1000 },
    { kind: 'toHeads', reads: 'qLocal', writes: 'q', waits: [1] },
    { kind: 'attn', reads: 'q', writes: 'o', waits: [2] },
    { kind: 'toSequence', reads: 'o', writes: 'oLocal', waits: [3] },
    { kind: 'post', reads: 'x.staged oLocal', writes: 'y', waits: [4] },
    { kind: 'copy', stream: 'd2h', reads: 'y', writes: 'x', waits: [5] },
  ),
  section('lossForward', { kind: 'loss', reads: 'y', writes: 'dx', accumulates: 'wgrad' }),
  section('lossBackward', { kind: 'emitGrads', reads: 'wgrad' }),
  section(
    'layerBackward',
    { kind: 'copy', stream: 'h2d', reads: 'x', writes: 'x.staged' },
    { kind: 'attnBwd', reads: 'q o', accumulates: 'q' },
    { kind: 'preBwd', reads: 'x.staged', accumulates: 'dx wgrad', waits: [0] },
    { kind: 'emitGrads', reads: 'wgrad' },
  ),
  section(
    'embedBackward',
    { kind: 'embedBwd', reads: 'dx tokenIds positions', accumulates: 'wgrad' },
    { kind: 'emitGrads', reads: 'wgrad' },
  ),
  section('gather', { kind: 'gather' }),
  section('reduce', { kind: 'reduce' }),
  section('optimizerStep', { kind: 'optimizerStep' }),
];

function turns(numLayers: number, zeroStage: number): readonly Turn[] {
  const zero = (name: string): Call => ({ section: name, args: [], owner: 'zero', waits: [] });
  const plan = (name: string, layer?: number): Call => ({
    section: name,
    args: [],
    owner: 'plan',
    // Every stream waits for every other.
    waits: [15, 15, 15, 15],
    ...(layer === undefined ? {} : { layer }),
  });
  const turn = (module: Turn['module'], direction: Turn['direction'], names: readonly string[], layer?: number): Turn => ({
    module,
    direction,
    ...(layer === undefined ? {} : { layer }),
    calls: [
      ...(zeroStage === 3 ? [zero('gather')] : []),
      ...names.map((name) => plan(name, layer)),
      ...(zeroStage >= 2 && direction === 'backward' ? [zero('reduce')] : []),
    ],
  });
  const layers = Array.from({ length: numLayers }, (_, layer) => layer);
  return [
    turn('embed', 'forward', ['embedForward']),
    ...layers.map((layer) => turn('layer', 'forward', ['layerForward'], layer)),
    turn('head', 'forward', ['lossForward']),
    turn('head', 'backward', ['lossBackward']),
    ...layers.toReversed().map((layer) => turn('layer', 'backward', ['layerBackward'], layer)),
    turn('embed', 'backward', ['embedBackward']),
    { module: 'end', direction: 'forward', calls: [...(zeroStage < 2 ? [zero('reduce')] : []), plan('optimizerStep')] },
  ];
}

/** Four layers on four ranks, ZeRO-3 and a CPU unless bent. */
export function smallPlan(bend: Bend = {}): PredictInput {
  const { model, run, cluster, deepspeed } = specs({
    ...bend,
    deepspeed: { zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' }, ...bend.deepspeed },
  });
  const pools = poolsOf(cluster);
  const links = linksOf(pools);
  return {
    model,
    run,
    cluster,
    deepspeed: deepspeed.config,
    parameters: parameterTable(model),
    layout: evenLayout(run.sequenceParallelSize, model.numHeads / run.sequenceParallelSize, model.numKvHeads / run.sequenceParallelSize),
    kernels: defaultKernels(cluster.device),
    pools: pools.map(({ name, kind, bytes }) => ({ name, kind, bytes })),
    links,
    streams: streamsOf(links),
    buffers,
    attributes: [{ mask: { kind: 'causal' } }],
    tables: [],
    sections: SECTIONS,
    programs: { train: { turns: turns(model.numLayers, run.zeroStage) } },
  };
}
