/** The tensors of a step, declared once for all policies; the strategy decides home and ring size of each. */
import type { Tensor } from '../logical.js';
import { type PolicyContext, type Sizes, inPool, sizesOf, tensor } from './context.js';
import { hiddenSlots, savedSlots } from './hiddenStates.js';
import { type LayerClass, type LayerPlan, layerPlan } from './layerClasses.js';

/** Tensors that loadBatch fills, in its order. */
export const TABLES = ['tokenIds', 'positions', 'labels'] as const;

/** Tensors by name; those that no section uses get no buffer. */
export function declareTensors(context: PolicyContext): readonly Tensor[] {
  const sizes = sizesOf(context);
  const plan = layerPlan(context);
  const all = [
    ...batchTensors(context, sizes),
    ...hiddenTensors(context, sizes, plan),
    ...localTensors(context, sizes),
    ...plan.classes.flatMap((one) => attentionTensors(context, sizes, one)),
    ...savedTensors(context, sizes, plan),
    ...gradientTensors(context),
  ];
  return [...new Map(all.map((one) => [one.name, one])).values()];
}

function batchTensors({ places }: PolicyContext, { localTokens, numChunks }: Sizes): readonly Tensor[] {
  return TABLES.map((name) =>
    tensor({
      name,
      dtype: 'int64',
      layout: 'local',
      inner: [],
      chunkRows: localTokens,
      slots: numChunks,
      home: places.device,
      scope: 'step',
    }),
  );
}

/** A tensor that may live in any pool: one instance in a file is one chunk. */
function placed(context: PolicyContext, one: Tensor): Tensor {
  const { places } = context;
  return { ...one, name: inPool(one.name, one.home, places), chunkInstances: places.isFile(one.home) };
}

/** Hidden states between layers, one instance a slot, in every pool that holds some; and the gradient that walks back. */
function hiddenTensors(context: PolicyContext, sizes: Sizes, plan: LayerPlan): readonly Tensor[] {
  const local = {
    dtype: sizes.dtype,
    layout: 'local',
    inner: [sizes.hidden],
    chunkRows: sizes.localTokens,
    slots: sizes.numChunks,
    scope: 'step',
  } as const;
  const { counts } = hiddenSlots(context, plan);
  return [
    ...[...counts].map(([home, instances]) => placed(context, tensor({ name: 'x', home, instances, ...local }))),
    placed(context, tensor({ name: 'dx', home: context.strategy.hiddenGradients, ...local })),
  ];
}

/** Slots of a ring whose chunk i + 1 is filled while chunk i is used; a single chunk has nothing to follow it. */
const ringSlots = ({ numChunks }: Sizes): number => Math.min(2, numChunks);

function localTensors({ places }: PolicyContext, sizes: Sizes): readonly Tensor[] {
  const local = (name: string, heads: number, dtype = sizes.dtype): Tensor =>
    tensor({
      name,
      dtype,
      layout: 'local',
      inner: [heads, sizes.headDim],
      chunkRows: sizes.localTokens,
      slots: ringSlots(sizes),
      home: places.device,
    });
  const { heads, kvHeads } = sizes;
  return [
    local('qLocal', heads),
    local('kLocal', kvHeads),
    local('vLocal', kvHeads),
    local('oLocal', heads),
    local('doLocal', heads),
    local('dqLocal', heads, 'float32'),
    local('dkLocal', kvHeads, 'float32'),
    local('dvLocal', kvHeads, 'float32'),
    { ...local('xStashed', 1), inner: [sizes.hidden] },
  ];
}

/** Head-sharded tensors of a layer of one class; a name that several classes declare means the same in each. */
function attentionTensors(context: PolicyContext, sizes: Sizes, layer: LayerClass): readonly Tensor[] {
  const { places, strategy } = context;
  const { numChunks, ownHeads, ownKvHeads } = sizes;
  const head = headTensors(context, sizes);
  const names = attentionNames(context, layer);
  const ring = ringSlots(sizes);
  const tileChunks = strategy.kvTileChunks;
  const keyValues = { home: layer.keyValues, tileChunks };
  const perQuery = names.isOuter ? { home: layer.keyValues } : { slots: ring };
  const gradients = names.isOuter
    ? { slots: Math.min(numChunks, 2 * tileChunks), dtype: 'float32' as const }
    : { home: layer.keyValueGradients, dtype: 'float32' as const, tileChunks };
  const output = { home: names.isOuter ? layer.keyValues : places.device };
  return [
    head(names.keyValue('k'), ownKvHeads, keyValues),
    head(names.keyValue('v'), ownKvHeads, keyValues),
    head(names.query('q'), ownHeads, perQuery),
    head(names.query('do'), ownHeads, perQuery),
    head(names.query('dq'), ownHeads, { ...perQuery, dtype: 'float32' }),
    head(names.keyValueGradient('dk'), ownKvHeads, gradients),
    head(names.keyValueGradient('dv'), ownKvHeads, gradients),
    head('oPart', ownHeads, { slots: ring }),
    head.lse('lsePart', { slots: ring }),
    head('oAcc', ownHeads, { slots: ring, dtype: 'float32' }),
    head.lse('lseAcc', { slots: ring }),
    ...(layer.savesOutput ? [] : [head(names.output('o'), ownHeads, output), head.lse(names.output('lse'), output)]),
  ];
}

/** What the tensors of a layer of one class are called: in the ascending order every query chunk is kept, in the descending one two. */
export function attentionNames({ places }: PolicyContext, layer: LayerClass) {
  const isOuter = layer.backwardOrder === 'keyValueOuterAscending';
  const kept = (name: string): string => (layer.keyValues === places.device ? `${name}.all` : inPool(name, layer.keyValues, places));
  const output = (name: string): string =>
    layer.savesOutput
      ? inPool(`${name}.${layer.isRebuilt ? 'rebuilt' : 'saved'}`, layer.attentionOutput, places)
      : isOuter
        ? inPool(name, layer.keyValues, places)
        : name;
  return {
    isOuter,
    keyValue: (name: 'k' | 'v'): string => inPool(name, layer.keyValues, places),
    query: (name: 'q' | 'do' | 'dq'): string => (isOuter ? kept(name) : name),
    keyValueGradient: (name: 'dk' | 'dv'): string => (isOuter ? `${name}.ring` : inPool(name, layer.keyValueGradients, places)),
    output: (name: 'o' | 'lse'): string => output(name),
  };
}

/** Declares a head-sharded tensor: by default whole, on the device, of the model's dtype. */
function headTensors({ places }: PolicyContext, sizes: Sizes) {
  type Options = Partial<Pick<Tensor, 'slots' | 'home' | 'tileChunks' | 'dtype'>>;
  const declare = (name: string, inner: readonly number[], options: Options): Tensor =>
    tensor({
      name,
      dtype: sizes.dtype,
      layout: 'head',
      inner,
      chunkRows: sizes.chunkTokens,
      slots: sizes.numChunks,
      home: places.device,
      ...options,
    });
  const head = (name: string, heads: number, options: Options = {}): Tensor => declare(name, [heads, sizes.headDim], options);
  return Object.assign(head, {
    lse: (name: string, options: Options = {}): Tensor => declare(name, [sizes.ownHeads], { dtype: 'float32', ...options }),
  });
}

/** Attention output and lse that are kept: an instance for each layer that keeps them in a pool, or for each of a segment. */
function savedTensors(context: PolicyContext, sizes: Sizes, plan: LayerPlan): readonly Tensor[] {
  const head = headTensors(context, sizes);
  const slots = savedSlots(plan);
  const kept = (classes: readonly (LayerClass | undefined)[], end: 'saved' | 'rebuilt'): readonly Tensor[] => {
    const homes = new Map<string, number>();
    for (const [layer, one] of classes.entries()) {
      if (one?.savesOutput === true) homes.set(one.attentionOutput, Math.max(homes.get(one.attentionOutput) ?? 0, (slots[layer] ?? 0) + 1));
    }
    return [...homes].flatMap(([home, instances]) =>
      [head(`o.${end}`, sizes.ownHeads, { home }), head.lse(`lse.${end}`, { home })].map((one) =>
        placed(context, { ...one, instances, scope: 'step' }),
      ),
    );
  };
  return [...kept(plan.classOf, 'saved'), ...kept(plan.rebuiltOf, 'rebuilt')];
}

/** Flat fp32 regions that weight gradients accumulate in, and the sum of token losses. */
function gradientTensors({ parameters, model, places }: PolicyContext): readonly Tensor[] {
  const flat = (name: string, rows: number, scope: Tensor['scope']): Tensor =>
    tensor({ name, dtype: 'float32', layout: 'flat', inner: [], chunkRows: rows, slots: 1, home: places.device, scope });
  return [
    flat('lossSum', 1, 'step'),
    flat('wgradLayer', Math.max(...parameters.layers.map(({ numElements }) => numElements)), 'call'),
    flat('wgradHead', parameters.numHeadElements, 'step'),
    // A tied weight's region holds lm_head's gradient from the loss on.
    flat('wgradEmbed', parameters.numEmbedElements, model.tieWordEmbeddings ? 'step' : 'call'),
  ];
}
