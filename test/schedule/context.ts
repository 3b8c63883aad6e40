/** Small policy contexts for tests of schedules, on a machine with a device, pinned memory and a file. */
import fc from 'fast-check';
import { sampleCode } from '../catalog/sampleCode.js';
import { linksOf, streamsOf } from '../../src/catalog/pools.js';
import { type Machine, buildSchedule } from '../../src/schedule/build.js';
import { placesOf } from '../../src/schedule/places.js';
import type { PolicyContext } from '../../src/schedule/policies/index.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import { parallelLayout } from '../../src/spec/parallelLayout.js';
import type { Pool } from '../../src/spec/pools.js';
import { type LayerStrategy, RECOMPUTE, type Strategy, segmentLengths } from '../../src/spec/strategy.js';
import type { ModelSpec, ParameterTable, PolicyName, RunSpec } from '../../src/spec/types.js';
import { POLICIES } from '../../src/strategy/policies/index.js';

const POOLS: readonly Pool[] = [
  { name: 'hbm', kind: 'device', bytes: 0 },
  { name: 'host', kind: 'pinned', bytes: 0 },
  { name: 'disk', kind: 'file', bytes: 0 },
];
const LINKS = linksOf(POOLS);

export const MACHINE: Machine = { pools: POOLS, links: LINKS, streams: streamsOf(LINKS) };
export const PLACES = placesOf(POOLS, LINKS);

type Placement = Omit<LayerStrategy, 'layers' | 'segments'>;

/** What each policy wants most. */
export const PLACEMENTS = Object.fromEntries(
  Object.entries(POLICIES).map(([name, policy]) => [name, policy.placements({ device: 'hbm', pinned: 'host' })[0]]),
) as Readonly<Record<PolicyName, Placement>>;

export interface SmallRange extends Partial<Placement> {
  readonly layers: readonly [start: number, end: number];
  readonly segments?: readonly number[];
}

/** What a test changes: places hold for all layers, unless `ranges` names others. */
export interface Small extends Partial<Placement>, Partial<Omit<Strategy, 'kind' | 'policy' | 'numChunks' | 'layers'>> {
  readonly segmentLayers?: number;
  readonly ranges?: readonly SmallRange[];
  readonly model?: Partial<ModelSpec>;
  readonly run?: Partial<RunSpec>;
  readonly masks?: PolicyContext['masks'];
  readonly rangeChunks?: number;
}

const CHUNK_TOKENS = 64;
const RANKS = 2;

/** Four layers, two ranks, chunks of 64 tokens; a kernel without rectangles and windows. */
export function smallContext(policy: PolicyName, numChunks: number, more: Small = {}): PolicyContext {
  const {
    segmentLayers = 1,
    ranges,
    model: modelMore,
    run: runMore,
    masks = { rectangle: false, window: false },
    rangeChunks = numChunks,
    ...chosen
  } = more;
  const { keyValues, keyValueGradients, attentionOutput, rebuiltOutput, rebuildsLast, internals, checkpoints, backwardOrder, ...whole } =
    chosen;
  const places = Object.fromEntries(
    Object.entries({
      keyValues,
      keyValueGradients,
      attentionOutput,
      rebuiltOutput,
      rebuildsLast,
      internals,
      checkpoints,
      backwardOrder,
    }).filter(([, place]) => place !== undefined),
  );
  const numLayers = modelMore?.numLayers ?? 4;
  const toLayers = ({ layers, segments, ...choice }: SmallRange): LayerStrategy => ({
    ...PLACEMENTS[policy],
    ...places,
    ...choice,
    layers,
    segments: segments ?? segmentLengths(layers[1] - layers[0], segmentLayers),
  });
  const model: ModelSpec = {
    kind: 'model',
    family: 'llama',
    numLayers,
    hiddenSize: 32,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 8,
    vocabSize: 64,
    tieWordEmbeddings: false,
    windows: Array.from({ length: numLayers }, () => null),
    code: sampleCode({ layers: numLayers }),
    hfConfig: {},
    ...modelMore,
  };
  const strategy: Strategy = {
    kind: 'strategy',
    policy,
    numChunks,
    chunkTokens: CHUNK_TOKENS,
    localChunkTokens: CHUNK_TOKENS / RANKS,
    kvTileChunks: 1,
    numLossTiles: 2,
    numTokenTiles: 1,
    prefetchDepth: 2,
    hiddenGradients: 'hbm',
    ...whole,
    layers: (ranges ?? [{ layers: [0, numLayers] as const }]).map(toLayers),
  };
  return {
    model,
    run: smallRun(policy, strategy, runMore),
    strategy,
    parameters: model.tieWordEmbeddings ? { ...PARAMETERS, numHeadElements: PARAMETERS.numHeadNormElements } : PARAMETERS,
    layout: parallelLayout(model, { sequenceParallelSize: RANKS, dataParallelSize: 1 }, RANKS),
    places: PLACES,
    rangeChunks,
    masks,
  };
}

function smallRun(policy: PolicyName, { numChunks, chunkTokens, prefetchDepth }: Strategy, more: Partial<RunSpec> = {}): RunSpec {
  const seqLen = chunkTokens * numChunks;
  return {
    kind: 'run',
    seqLen,
    paddedSeqLen: seqLen,
    rowTile: 1,
    sequenceParallelSize: RANKS,
    dataParallelSize: 1,
    policy,
    segmentLayers: 1,
    prefetchDepth,
    hbmReserve: 0,
    dtype: 'float32',
    zeroStage: 3,
    gradientAccumulationSteps: 1,
    lossScale: 1,
    numSteps: 1,
    seed: 0,
    ...more,
  };
}

const PARAMETERS: ParameterTable = {
  layers: [{ weights: [], numElements: 300 }],
  head: [],
  numHeadNormElements: 20,
  embed: [{ name: 'model.embed_tokens.weight', shape: [70], offset: 0, numel: 70, trainable: true }],
  numHeadElements: 80,
  numEmbedElements: 70,
  numModelParameters: 1350,
  numTrainedParameters: 1350,
};

/** The schedule without addresses, of ops that make nothing inside. */
export function smallSchedule(policy: PolicyName, numChunks: number, more: Small = {}): Schedule {
  return buildSchedule(smallContext(policy, numChunks, more), MACHINE, () => 0);
}

/** Strategies of every kind: each place, order, tile, segment and mask that the sections treat differently. */
export const EVERY_KIND: readonly (readonly [name: string, policy: PolicyName, numChunks: number, more: Small])[] = [
  ['ulysses', 'ulysses', 1, {}],
  ['ulysses-offload', 'ulysses-offload', 1, {}],
  ['alst', 'alst', 1, { numTokenTiles: 3 }],
  ['fpdt of one chunk', 'fpdt', 1, {}],
  ['fpdt', 'fpdt', 5, {}],
  ['fpdt, one slot more', 'fpdt', 5, { prefetchDepth: 3 }],
  ['fpdt, tiles of two', 'fpdt', 5, { kvTileChunks: 2 }],
  ['fpdt, tiles of three, a kernel with rectangles', 'fpdt', 7, { kvTileChunks: 3, masks: { rectangle: true, window: true } }],
  ['fpdt, all on the device', 'fpdt', 4, { keyValues: 'hbm', checkpoints: 'hbm' }],
  ['fpdt, outputs saved', 'fpdt', 4, { attentionOutput: 'host' }],
  ['fpdt, segments of two', 'fpdt', 4, { segmentLayers: 2 }],
  ['fpdt, segments of three, outputs kept once rebuilt', 'fpdt', 3, { segmentLayers: 3, rebuiltOutput: 'hbm' }],
  ['fpdt, segments of three, all outputs kept once rebuilt', 'fpdt', 4, { segmentLayers: 3, rebuiltOutput: 'host', rebuildsLast: true }],
  [
    'auto, unequal segments, outputs kept once rebuilt',
    'auto',
    3,
    {
      attentionOutput: RECOMPUTE,
      checkpoints: 'host',
      rebuiltOutput: 'host',
      model: { numLayers: 6, windows: [null, 100, null, null, 100, null] },
      masks: { rectangle: true, window: true },
      ranges: [
        { layers: [0, 4], segments: [3, 1] },
        { layers: [4, 6], rebuiltOutput: 'disk', rebuildsLast: true, segments: [2] },
      ],
    },
  ],
  ['auto, ranges of two chunks', 'auto', 7, { rangeChunks: 2 }],
  [
    'auto, ranges of two chunks, a kernel with rectangles, recomputed',
    'auto',
    6,
    { rangeChunks: 2, attentionOutput: RECOMPUTE, masks: { rectangle: true, window: true } },
  ],
  [
    'auto, ranges of two chunks in tiles of three',
    'auto',
    7,
    { rangeChunks: 2, keyValues: 'host', keyValueGradients: 'host', kvTileChunks: 3 },
  ],
  ['fpdt, ranges of two chunks in tiles of five', 'fpdt', 7, { rangeChunks: 2, kvTileChunks: 5, masks: { rectangle: true, window: true } }],
  [
    'auto, ranges of one chunk, windows',
    'auto',
    5,
    { rangeChunks: 1, masks: { rectangle: true, window: true }, model: { windows: [null, 100, 200, 1] } },
  ],
  ['fpdt, no slot more, dx on the host', 'fpdt', 4, { prefetchDepth: 1, hiddenGradients: 'host' }],
  ['auto', 'auto', 4, {}],
  ['auto of one chunk', 'auto', 1, {}],
  ['auto, a kernel with rectangles', 'auto', 4, { masks: { rectangle: true, window: true } }],
  ['auto, recomputed', 'auto', 4, { attentionOutput: RECOMPUTE }],
  ['auto, segments of three and one', 'auto', 3, { segmentLayers: 3, attentionOutput: 'host', checkpoints: 'host' }],
  ['auto, k, v, dk, dv on the host', 'auto', 5, { keyValues: 'host', keyValueGradients: 'host' }],
  ['auto, k, v, dk, dv on the host, tiles of two', 'auto', 5, { keyValues: 'host', keyValueGradients: 'host', kvTileChunks: 2 }],
  ['auto, dk, dv on the host, tiles of two', 'auto', 5, { keyValueGradients: 'host', kvTileChunks: 2 }],
  ['auto, checkpoints and outputs on disk', 'auto', 4, { checkpoints: 'disk', attentionOutput: 'disk', segmentLayers: 2 }],
  ['auto, dx on the host, tiles of tokens', 'auto', 3, { hiddenGradients: 'host', numTokenTiles: 3, run: { zeroStage: 1 } }],
  ['auto, tied', 'auto', 3, { model: { tieWordEmbeddings: true }, run: { zeroStage: 2 } }],
  ['fpdt, windows', 'fpdt', 5, { kvTileChunks: 2, masks: { rectangle: true, window: true }, model: { windows: [100, 100, null, null] } }],
  ['auto, windows', 'auto', 5, { masks: { rectangle: true, window: true }, model: { windows: [null, 100, 100, 1] } }],
  [
    'auto, windows, tiles of two',
    'auto',
    5,
    { keyValues: 'host', kvTileChunks: 2, masks: { rectangle: false, window: true }, model: { windows: [130, null, 64, 65] } },
  ],
  [
    'three ranges',
    'auto',
    3,
    {
      hiddenGradients: 'host',
      model: { numLayers: 7 },
      ranges: [
        { layers: [0, 3], checkpoints: 'disk', attentionOutput: 'disk', segments: [2, 1] },
        { layers: [3, 5], attentionOutput: RECOMPUTE, keyValues: 'host', keyValueGradients: 'host', segments: [2] },
        { layers: [5, 7], ...PLACEMENTS.fpdt, segments: [1, 1] },
      ],
    },
  ],
];

/** Of a range of layers, drawn. */
export function anyPlacement(): fc.Arbitrary<Partial<SmallRange>> {
  return fc
    .record({
      keyValues: fc.constantFrom('hbm', 'host'),
      keyValueGradients: fc.constantFrom('hbm', 'host'),
      attentionOutput: fc.constantFrom(RECOMPUTE, 'hbm', 'host', 'disk'),
      checkpoints: fc.constantFrom('hbm', 'host', 'disk'),
      isOuter: fc.boolean(),
    })
    .map(({ isOuter, ...places }) =>
      isOuter ? { ...places, keyValueGradients: 'hbm', backwardOrder: PLACEMENTS.fpdt.backwardOrder } : places,
    );
}
