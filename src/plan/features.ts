/** What a worker must know to run a plan, by name, computed from the plan's content: a worker refuses a feature it does not know. */
import type { Access, Attribute, Op, Section } from '../schedule/op.js';
import type { Turn } from '../schedule/program.js';
import type { UnsealedPlan } from './executionPlan.js';

type Predicate = (plan: UnsealedPlan) => boolean;

/** One predicate a feature, in the order that plans list them. */
const FEATURES = {
  /** Segments of several layers: a backward turn runs ops for other layers than its own. */
  rebuild: ({ programs }) => programs.train.turns.some(rebuilds),
  /** The forward of decoder layers is written several times. */
  'layer-classes': (plan) => forwardSections(plan).size > 1,
  'file-pool': (plan) => plan.buffers.some((buffer) => poolKind(buffer.pool, plan) === 'file'),
  'causal-rectangle': (plan) => someOpWith(plan, ({ mask }) => mask?.kind === 'causal', isRectangle),
  window: (plan) => someOpWith(plan, ({ mask }) => mask?.kind === 'window'),
  tiles: (plan) => someOpWith(plan, ({ tiles = 1 }) => tiles > 1),
  /** Keys and values that were fetched are attended to several chunks at a time. */
  'kv-tiles': (plan) => plan.sections.some((section) => usesTiles(section, plan.strategy.chunkTokens)),
  /** A key/value head on several ranks, or twice on one. */
  'kv-copies': ({ layout }) => hasRepeats(layout.heads.keyValue.flat().filter((head) => head >= 0)),
  'padded-heads': ({ layout: { heads } }) => [...heads.query, ...heads.keyValue].some((own) => own.includes(-1)),
  /** lm_head's gradient is added to the embedding's region. */
  'tied-region': (plan) => tiesRegion(plan),
  /** Weights that do not train. */
  frozen: ({ parameters: { layers, head, embed } }) =>
    [...layers.flatMap(({ weights }) => weights), ...head, ...embed].some(({ trainable }) => !trainable),
  /** Adapters beside linear modules, which peft puts there. */
  lora: ({ model }) => model.lora !== undefined,
  /** A second program, which evaluates. */
  evaluate: ({ programs }) => programs.evaluate !== undefined,
  'hidden-gradient-offload': (plan) => plan.sections.some((section) => offloadsHiddenGradient(section, plan)),
  /** Several documents in a sequence, and weights of the loss. */
  packing: ({ run }) => run.packing === true,
  /** Kernels beside attention that are not plain. */
  'loss-inplace': ({ kernels }) => kernels.fused?.loss === 'inplace',
  'merge-lerp': ({ kernels }) => kernels.fused?.merge === 'lerp',
  'norm-vectornorm': ({ kernels }) => kernels.fused?.norm === 'vectornorm',
  'rope-addcmul': ({ kernels }) => kernels.fused?.rope === 'addcmul',
  'elementwise-inplace': ({ kernels }) => kernels.fused?.elementwise === 'inplace',
  'weight-gradient-blocks': ({ kernels }) => kernels.fused?.weightGradient === 'blocks',
  'weight-gradient-addmm': ({ kernels }) => kernels.fused?.weightGradient === 'addmm',
  /** Attention to a group of a rank's heads at a time. */
  'head-groups': ({ attributes }) => attributes.some(({ heads }) => heads !== undefined),
} as const satisfies Record<string, Predicate>;

export type Feature = keyof typeof FEATURES;
export const FEATURE_NAMES = Object.keys(FEATURES) as readonly Feature[];

export function featuresOf(plan: UnsealedPlan): readonly Feature[] {
  return FEATURE_NAMES.filter((name) => FEATURES[name](plan));
}

function rebuilds({ layer, calls }: Turn): boolean {
  return calls.some((call) => call.owner === 'plan' && call.layer !== undefined && call.layer !== layer);
}

/** Sections that attend in a decoder layer's forward turn: what only moves hidden states is no class of its own. */
function forwardSections({ programs, sections }: UnsealedPlan): ReadonlySet<string> {
  const attending = new Set(sections.filter(({ ops }) => ops.some(({ kind }) => kind === 'attn')).map(({ name }) => name));
  const turns = programs.train.turns.filter(({ module, direction }) => module === 'layer' && direction === 'forward');
  const called = turns.flatMap(({ calls }) => calls.filter(({ owner }) => owner === 'plan').map(({ section }) => section));
  return new Set(called.filter((section) => attending.has(section)));
}

function poolKind(name: string, { pools }: UnsealedPlan): string | undefined {
  return pools.find((pool) => pool.name === name)?.kind;
}

/** Whether some op has an attribute of a kind, of which there are few: most plans need not be searched. */
function someOpWith(
  { attributes, sections }: UnsealedPlan,
  has: (attribute: Attribute) => boolean,
  holds: (op: Op) => boolean = () => true,
): boolean {
  const wanted = attributes.map(has);
  if (!wanted.includes(true)) return false;
  return sections.some(({ ops }) => ops.some((op) => op.attribute !== undefined && wanted[op.attribute] === true && holds(op)));
}

function isRectangle({ tokens, kv }: Op): boolean {
  return kv !== undefined && kv.end - kv.start !== tokens.end - tokens.start;
}

/** An attention op over more than a chunk of keys that a copy of the same section has brought. */
function usesTiles({ ops }: Section, chunkTokens: number): boolean {
  const fetched = new Set<number>();
  for (const { kind, writes } of ops) if (kind === 'copy') for (const { buffer } of writes) fetched.add(buffer);
  return ops.some(({ kv, reads, attribute }) => {
    const keys = reads[KEYS];
    return kv !== undefined && attribute !== undefined && kv.end - kv.start > chunkTokens && keys !== undefined && fetched.has(keys.buffer);
  });
}

/** Attention kinds read q, k, v first. */
const KEYS = 1;

function hasRepeats(heads: readonly number[]): boolean {
  return new Set(heads).size < heads.length;
}

/** The last view a loss accumulates into is lm_head's region; the embedding's is the one that embedBwd accumulates into. */
function tiesRegion(plan: UnsealedPlan): boolean {
  const regions = (kind: Op['kind']) =>
    plan.sections.flatMap(({ ops }) => ops.filter((op) => op.kind === kind).map((op) => op.accumulates.at(-1)?.buffer));
  const embedding = new Set(regions('embedBwd'));
  return [...regions('loss'), ...regions('lossWeighted')].some((buffer) => buffer !== undefined && embedding.has(buffer));
}

/** Some view that a parameter with the role of a hidden gradient names lies outside the device. */
function offloadsHiddenGradient({ params, ops }: Section, plan: UnsealedPlan): boolean {
  const gradients = params.map(({ entry, exit }) => entry?.value === 'hiddenGradient' || exit?.value === 'hiddenGradient');
  if (!gradients.includes(true)) return false;
  const isAway = plan.buffers.map(({ pool }) => poolKind(pool, plan) !== 'device');
  const offloads = ({ buffer, param }: Access): boolean => param >= 0 && gradients[param] === true && isAway[buffer] !== false;
  return ops.some((op) => op.reads.some(offloads) || op.writes.some(offloads) || op.accumulates.some(offloads));
}
