/** A program's steps as they train: weights that do not are marked, and linear steps have their adapters beside them. */
import type { Step, StepAttributes, WeightUse } from '../../spec/modelCode.js';
import { moduleOf, type Steps } from './instantiate.js';
import type { Adapter } from './lora.js';
import type { Training } from './training.js';

const NO_ATTRIBUTES: StepAttributes = {};

export function adapt(program: Steps, training: Training): Steps {
  const widths = { ...program.widths };
  /** What is made of an input once, though several steps use parts of the same fused module. */
  const shared = new Map<string, string>();
  const steps = program.steps.flatMap((step): readonly Step[] => {
    const marked = { ...step, weights: markFrozen(step.weights, training) };
    const [weight] = step.op === 'linear' ? step.weights : [];
    const adapter = weight === undefined ? undefined : training.adapterOf(moduleOf(weight));
    return weight === undefined || adapter === undefined ? [marked] : beside(marked, weight, adapter, { widths, shared });
  });
  return { ...program, steps, widths };
}

export function markFrozen(weights: readonly WeightUse[], { isFrozen }: Training): readonly WeightUse[] {
  return weights.map((use) => (isFrozen(use.name) ? { ...use, frozen: true } : use));
}

interface Made {
  readonly widths: Record<string, number>;
  readonly shared: Map<string, string>;
}

/** y = x W + scaling * (x A) B, as peft/tuners/lora/layer.py has it; of a fused W the part of B with its outputs. */
function beside(step: Step, weight: WeightUse, { rank, scaling }: Adapter, { widths, shared }: Made): readonly Step[] {
  const { to, of, width, weights } = step;
  const [input = ''] = of;
  const module = moduleOf(weight);
  const outputs = step.attributes.transposed === true ? weight.shape[1] : weight.shape[0];
  const cut = weight.part === undefined ? {} : { part: weight.part };
  const made = (
    op: Step['op'],
    name: string,
    from: readonly string[],
    size: number,
    uses: readonly WeightUse[],
    more = NO_ATTRIBUTES,
  ): Step => {
    widths[name] = size;
    return { op, of: from, to: name, width: size, weights: uses, attributes: more };
  };
  const key = `${module} ${input}`;
  const known = shared.get(key);
  const low = known ?? `${to} low`;
  shared.set(key, low);
  const down = { name: `${module}.lora_A.default.weight`, shape: [rank, widths[input] ?? 0] };
  const up = { name: `${module}.lora_B.default.weight`, shape: [outputs ?? 0, rank], ...cut };
  widths[`${to} base`] = width;
  const base = {
    ...step,
    to: `${to} base`,
    weights: weights.map((use) => ({ ...use, name: `${module}.base_layer${use.name.slice(module.length)}` })),
  };
  const change = scaling === 1 ? `${to} up` : `${to} change`;
  return [
    base,
    ...(known === undefined ? [made('linear', low, [input], rank, [down])] : []),
    made('linear', `${to} up`, [low], width, [up]),
    ...(scaling === 1 ? [] : [made('scale', change, [`${to} up`], width, [], { by: scaling })]),
    made('add', to, [base.to, change], width, []),
  ];
}
