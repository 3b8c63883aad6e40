/** The tensors of a step, declared once for all policies; the strategy decides home and ring size of each. */
import type { Tensor } from '../logical.js';
import type { Places } from '../places.js';
import { keptWidth } from '../../spec/modelCode.js';
import { RECOMPUTE } from '../../spec/strategy.js';
import { type PolicyContext, type Sizes, inPool, sizesOf, tensor } from './context.js';
import { hiddenSlots, savedSlots } from './hiddenStates.js';
import { lastFor } from './lastFor.js';
import { type LayerClass, type LayerPlan, layerPlan } from './layerClasses.js';

const TABLES = ['tokenIds', 'positions', 'labels'] as const;

/** Tensors that loadBatch fills, in its order. */
export function tablesOf({ run }: PolicyContext): readonly string[] {
  return run.packing === true ? [...TABLES, WEIGHTS] : TABLES;
}

/** Of the loss of each token. */
export const WEIGHTS = 'weights';

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
    ...keptTensors(context, sizes, plan),
    ...gradientTensors(context),
  ];
  return [...new Map(all.map((one) => [one.name, one])).values()];
}

function batchTensors(context: PolicyContext, { localTokens, numChunks }: Sizes): readonly Tensor[] {
  return tablesOf(context).map((name) =>
    tensor({
      name,
      dtype: name === WEIGHTS ? 'float32' : 'int64',
      layout: 'local',
      inner: [],
      chunkRows: localTokens,
      slots: numChunks,
      home: context.places.device,
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
export const ringSlots = ({ numChunks }: Sizes): number => Math.min(2, numChunks);

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
  const { numChunks, headGroups } = sizes;
  const [ownHeads, ownKvHeads] = [sizes.ownHeads / headGroups, sizes.ownKvHeads / headGroups];
  const head = headTensors(context, sizes);
  const names = attentionNames(context, layer);
  const ring = ringSlots(sizes);
  const tileChunks = strategy.kvTileChunks;
  const keyValues = { home: layer.keyValues, tileChunks };
  const perQuery = names.isOuter ? { home: layer.keyValues } : { slots: ring };
  const gradients = names.isOuter
    ? { slots: Math.min(numChunks, 2 * tileChunks), dtype: 'float32' as const }
    : { home: layer.keyValueGradients, dtype: 'float32' as const, tileChunks };
  const atOnce = names.isOuter ? layer.keyValues : places.device;
  // Of all groups o waits as long as dx: in its place.
  const output = { home: headGroups === 1 ? atOnce : strategy.hiddenGradients, slots: numChunks * headGroups };
  return [
    head(names.k, ownKvHeads, keyValues),
    head(names.v, ownKvHeads, keyValues),
    head(names.q, ownHeads, perQuery),
    head(names.do, ownHeads, headGroups === 1 ? perQuery : { home: outputGradientPlace(context), slots: numChunks * headGroups }),
    head(names.dq, ownHeads, { ...perQuery, dtype: 'float32' }),
    head(names.dk, ownKvHeads, gradients),
    head(names.dv, ownKvHeads, gradients),
    head('oPart', ownHeads, { slots: ring }),
    head.lse('lsePart', { slots: ring }),
    head('oAcc', ownHeads, { slots: ring, dtype: 'float32' }),
    head.lse('lseAcc', { slots: ring }),
    ...(layer.savesOutput ? [] : [head(names.o, ownHeads, output), head.lse(names.lse, output)]),
  ];
}

/** Gradients of attention's output, where groups of heads come one after the other: they wait for theirs on the host if there is one. */
function outputGradientPlace({ places }: PolicyContext): string {
  return places.pinned ?? places.device;
}

/** What the tensors of a layer of one class are called. */
export interface AttentionNames {
  /** In the ascending order every query chunk is kept, in the descending one two. */
  readonly isOuter: boolean;
  readonly k: string;
  readonly v: string;
  readonly q: string;
  readonly do: string;
  readonly dq: string;
  readonly dk: string;
  readonly dv: string;
  readonly o: string;
  readonly lse: string;
}

/** Every op of a section asks again. */
export function attentionNames({ places }: PolicyContext, layer: LayerClass): AttentionNames {
  return lastNames({ places, layer });
}

const lastNames = lastFor(
  ({ layer }: NamesInput) => layer,
  (one, other) => one.places === other.places,
  namesOf,
);

interface NamesInput {
  readonly places: Places;
  readonly layer: LayerClass;
}

function namesOf({ places, layer }: NamesInput): AttentionNames {
  const isOuter = layer.backwardOrder === 'keyValueOuterAscending';
  const keyValue = (name: string): string => inPool(name, layer.keyValues, places);
  const kept = (name: string): string => (layer.keyValues === places.device ? `${name}.all` : keyValue(name));
  const query = (name: string): string => (isOuter ? kept(name) : name);
  const gradient = (name: string): string => (isOuter ? `${name}.ring` : inPool(name, layer.keyValueGradients, places));
  const output = (name: string): string => {
    if (layer.savesOutput) return inPool(`${name}.${layer.isRebuilt ? 'rebuilt' : 'saved'}`, layer.attentionOutput, places);
    return isOuter ? keyValue(name) : name;
  };
  return {
    isOuter,
    k: keyValue('k'),
    v: keyValue('v'),
    q: query('q'),
    do: query('do'),
    dq: query('dq'),
    dk: gradient('dk'),
    dv: gradient('dv'),
    o: output('o'),
    lse: output('lse'),
  };
}

/** Declares a head-sharded tensor: by default whole, on the device, of the model's dtype. */
function headTensors({ places }: PolicyContext, sizes: Sizes) {
  type Options = Partial<Pick<Tensor, 'slots' | 'home' | 'tileChunks' | 'dtype' | 'headsFirst'>>;
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
    lse: (name: string, options: Options = {}): Tensor =>
      declare(name, [sizes.ownHeads / sizes.headGroups], { dtype: 'float32', headsFirst: true, ...options }),
  });
}

/** Attention output and lse that are kept: an instance for each layer that keeps them in a pool, or for each of a segment. */
function savedTensors(context: PolicyContext, sizes: Sizes, plan: LayerPlan): readonly Tensor[] {
  const head = headTensors(context, sizes);
  const instanceOf = savedSlots(plan);
  const slots = sizes.numChunks * sizes.headGroups;
  const kept = (classes: readonly (LayerClass | undefined)[], end: 'saved' | 'rebuilt'): readonly Tensor[] => {
    const homes = new Map<string, number>();
    for (const [layer, one] of classes.entries()) {
      if (one?.savesOutput === true)
        homes.set(one.attentionOutput, Math.max(homes.get(one.attentionOutput) ?? 0, (instanceOf[layer] ?? 0) + 1));
    }
    return [...homes].flatMap(([home, instances]) =>
      [head(`o.${end}`, sizes.ownHeads / sizes.headGroups, { home, slots }), head.lse(`lse.${end}`, { home, slots })].map((one) =>
        placed(context, { ...one, instances, scope: 'step' }),
      ),
    );
  };
  return [...kept(plan.classOf, 'saved'), ...kept(plan.rebuiltOf, 'rebuilt')];
}

/** Products that are kept: an instance for each layer that keeps them in a pool. */
function keptTensors(context: PolicyContext, sizes: Sizes, { classOf }: LayerPlan): readonly Tensor[] {
  const homes = [...new Set(classOf.map(({ internals }) => internals))].filter((home) => home !== RECOMPUTE);
  return homes.map((home) =>
    placed(
      context,
      tensor({
        name: 'kept',
        dtype: sizes.dtype,
        layout: 'local',
        inner: [keptWidth(context.model.code)],
        chunkRows: sizes.localTokens,
        slots: sizes.numChunks,
        home,
        instances: classOf.filter(({ internals }) => internals === home).length,
        scope: 'step',
      }),
    ),
  );
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
