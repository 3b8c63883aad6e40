/** The tensors of a step, declared once for all policies; the strategy decides home and ring size of each. */
import type { Pool } from '../buffer.js';
import type { Tensor } from '../logical.js';
import { type PolicyContext, type Sizes, sizesOf, tensor } from './context.js';

/** Slots of a ring whose chunk i + 1 is filled while chunk i is used; a single chunk has nothing to follow it. */
const ringSlots = ({ numChunks }: Sizes): number => Math.min(2, numChunks);

export function declareTensors(context: PolicyContext): readonly Tensor[] {
  const sizes = sizesOf(context);
  return [...batchTensors(sizes), ...streamTensors(context, sizes), ...attentionTensors(context, sizes), ...gradientTensors(context)];
}

function batchTensors({ localTokens, numChunks }: Sizes): readonly Tensor[] {
  return ['tokenIds', 'positions', 'labels'].map((name) =>
    tensor({ name, dtype: 'int64', layout: 'local', inner: [], chunkRows: localTokens, slots: numChunks, scope: 'step' }),
  );
}

/** Hidden states between layers: checkpoints x, states inside a segment, and the gradient dx that walks back. */
function streamTensors({ strategy }: PolicyContext, sizes: Sizes): readonly Tensor[] {
  const local = {
    dtype: sizes.dtype,
    layout: 'local',
    inner: [sizes.hidden],
    chunkRows: sizes.localTokens,
    slots: sizes.numChunks,
  } as const;
  const checkpoints = { ...local, home: strategy.checkpoints };
  const inner = strategy.segmentLayers - 1;
  return [
    tensor({ name: 'x', ...checkpoints, scope: 'step', instances: sizes.numSegments + 1 }),
    ...(inner > 0 ? [tensor({ name: 'xInner', ...checkpoints, scope: 'step', instances: inner })] : []),
    tensor({ name: 'dx', ...local, scope: 'step' }),
  ];
}

function attentionTensors(context: PolicyContext, sizes: Sizes): readonly Tensor[] {
  const { strategy, model } = context;
  const { dtype, headDim, localTokens, chunkTokens, numChunks } = sizes;
  const ring = ringSlots(sizes);
  const local = (name: string, heads: number, type = dtype): Tensor =>
    tensor({ name, dtype: type, layout: 'local', inner: [heads, headDim], chunkRows: localTokens, slots: ring });
  const head = (name: string, heads: number, slots: number, type = dtype, home: Pool = 'hbm'): Tensor =>
    tensor({ name, dtype: type, layout: 'head', inner: [heads, headDim], chunkRows: chunkTokens, slots, home });
  const lse = (name: string, slots: number, home: Pool = 'hbm'): Tensor =>
    tensor({ name, dtype: 'float32', layout: 'head', inner: [sizes.ownHeads], chunkRows: chunkTokens, slots, home });

  const { heads, kvHeads, ownHeads, ownKvHeads } = sizes;
  const keyValueSlots = numChunks;
  const keyValueOuter = strategy.backwardOrder === 'keyValueOuterAscending';
  const perQuery = keyValueOuter ? strategy.keyValues : 'hbm';
  const querySlots = keyValueOuter ? numChunks : ring;
  const accumulatorSlots = keyValueOuter ? ring : numChunks;
  const saved = strategy.attentionOutput !== 'recompute';
  const outputHome = saved ? (strategy.attentionOutput as Pool) : perQuery;
  const output = { home: outputHome, ...(saved ? { scope: 'step' as const, instances: model.numLayers } : {}) };
  return [
    local('qLocal', heads),
    local('kLocal', kvHeads),
    local('vLocal', kvHeads),
    local('oLocal', heads),
    local('doLocal', heads),
    local('dqLocal', heads, 'float32'),
    local('dkLocal', kvHeads, 'float32'),
    local('dvLocal', kvHeads, 'float32'),
    head('q', ownHeads, querySlots, dtype, perQuery),
    head('k', ownKvHeads, keyValueSlots, dtype, strategy.keyValues),
    head('v', ownKvHeads, keyValueSlots, dtype, strategy.keyValues),
    head('oPart', ownHeads, ring),
    lse('lsePart', ring),
    head('oAcc', ownHeads, ring, 'float32'),
    lse('lseAcc', ring),
    { ...head('o', ownHeads, numChunks), ...output },
    { ...lse('lse', numChunks), ...output },
    head('do', ownHeads, querySlots, dtype, perQuery),
    head('dq', ownHeads, querySlots, 'float32', perQuery),
    head('dk', ownKvHeads, accumulatorSlots, 'float32'),
    head('dv', ownKvHeads, accumulatorSlots, 'float32'),
  ];
}

/** Flat fp32 regions that weight gradients accumulate in, and the sum of token losses. */
function gradientTensors({ parameters }: PolicyContext): readonly Tensor[] {
  const flat = (name: string, rows: number, scope: Tensor['scope']): Tensor =>
    tensor({ name, dtype: 'float32', layout: 'flat', inner: [], chunkRows: rows, slots: 1, scope });
  return [
    flat('lossSum', 1, 'step'),
    flat('wgradLayer', parameters.numLayerElements, 'section'),
    flat('wgradHead', parameters.numHeadElements, 'step'),
    flat('wgradEmbed', parameters.numEmbedElements, 'section'),
  ];
}
