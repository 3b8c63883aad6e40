/** Written steps with the settings of a config put in: names given once, widths and weights known. */
import { FpdtError } from '../../spec/errors.js';
import { describe } from '../../spec/describe.js';
import { ACTIVATIONS } from './primitives.js';
import { evaluate, isTrue, type Expression, type Settings } from './settings.js';
import type { PrimitiveName, Step, StepAttributes, WeightUse } from '../../spec/modelCode.js';
import type { WrittenStep } from './written.js';

/** Keys of a written step that are no attributes. */
const STRUCTURE = ['op', 'of', 'to', 'weight', 'bias', 'when', 'width', 'rows', 'part', 'groups', 'start', 'end'];
/** Attributes that are texts as they stand. */
const TEXTS = ['style', 'module'];

/** A program: its steps, and the widths of what they start from and make. `outputs`: the last value of each name. */
export interface Steps {
  readonly steps: readonly Step[];
  readonly widths: Readonly<Record<string, number>>;
  readonly outputs: Readonly<Record<string, string>>;
}

/** `inputs`: widths of the views that the program starts from, which it calls by their names. */
export function instantiate(written: readonly WrittenStep[], settings: Settings, inputs: Readonly<Record<string, number>>): Steps {
  const widths: Record<string, number> = Object.fromEntries(Object.entries(inputs).map(([name, width]) => [viewName(name), width]));
  const latest = new Map(Object.keys(inputs).map((name) => [name, viewName(name)]));
  const steps: Step[] = [];
  for (const one of written) {
    if (one.when !== undefined && !isTrue(evaluate(one.when, settings))) continue;
    const of = [one.of].flat().map((name) => found(latest.get(name), name));
    const to = fresh(one.to, widths);
    const made = toStep(one, of, to, settings, widths);
    steps.push(made);
    widths[to] = made.width;
    latest.set(one.to, to);
  }
  return { steps, widths, outputs: Object.fromEntries(latest) };
}

/** The weights that a program uses, each once. */
export function weightNames({ steps }: Steps): readonly string[] {
  return [...new Set(steps.flatMap(({ weights }) => weights.map(({ name }) => name)))];
}

/** Its linear modules, each once. */
export function linearModules({ steps }: Steps): readonly string[] {
  const linear = steps.flatMap(({ op, weights: [weight] }) => (op === 'linear' && weight !== undefined ? [moduleOf(weight)] : []));
  return [...new Set(linear)];
}

/** The module of a weight that is called `weight` in it. */
export function moduleOf({ name }: WeightUse): string {
  return name.replace(/\.weight$/, '');
}

/** Views of an op and values of its code are apart. */
export function viewName(name: string): string {
  return `@${name}`;
}

function found(name: string | undefined, written: string): string {
  if (name === undefined) throw new RangeError(`a family's step uses '${written}', which no step before it makes`);
  return name;
}

/** The name itself where it is new, else with a number. */
function fresh(name: string, taken: Readonly<Record<string, number>>): string {
  if (taken[name] === undefined) return name;
  let number = 2;
  while (taken[`${name}.${number}`] !== undefined) number += 1;
  return `${name}.${number}`;
}

function toStep(one: WrittenStep, of: readonly string[], to: string, settings: Settings, widths: Readonly<Record<string, number>>): Step {
  const number = (key: string): number => numberOf(one, key, settings);
  const inWidth = widths[of[0] ?? ''] ?? 0;
  const given = Object.entries(one).filter(([key]) => !STRUCTURE.includes(key));
  const values = given.map(([key, value]) => [key, TEXTS.includes(key) ? value : evaluate(value as Expression, settings)] as const);
  const attributes = Object.fromEntries(values.filter(([, value]) => value !== null)) as StepAttributes;
  switch (one.op) {
    case 'linear': {
      const { weights, width } = linearWeights(one, inWidth, settings);
      return step(one.op, of, to, width, weights, attributes);
    }
    case 'rmsnorm':
    case 'layernorm': {
      const size = one.size === undefined ? inWidth : number('size');
      return step(one.op, of, to, inWidth, normWeights(one, size, settings), { ...attributes, size });
    }
    case 'angles':
      return step(one.op, of, to, number('dims'), [], attributes);
    case 'slice': {
      const [groups, start, end] = [number('groups'), number('start'), number('end')];
      return step(one.op, of, to, groups * (end - start), [], { ...attributes, groups, start, end, each: inWidth / groups });
    }
    case 'lookup':
      checkPadding(attributes.padding, number('rows'));
      return step(
        one.op,
        of,
        to,
        number('width'),
        [{ name: `${one.weight}.weight`, shape: [number('rows'), number('width')] }],
        attributes,
      );
    case 'activation':
      checkActivation(attributes.kind);
      return step(one.op, of, to, inWidth, [], attributes);
    case 'rope':
      checkRotated(Number(attributes.dims), Number(attributes.headDim));
      return step(one.op, of, to, inWidth, [], attributes);
    default:
      return step(one.op, of, to, inWidth, [], attributes);
  }
}

/** As torch's embedding has it: from the end where it is negative. */
function checkPadding(padding: unknown, rows: number): void {
  if (padding === undefined || (Number(padding) >= -rows && Number(padding) < rows)) return;
  throw new FpdtError(`model config.pad_token_id: ${describe(padding)} is no row of an embedding of ${rows}`, {
    code: 'invalid-value',
    hint: `give null, or a token below ${rows}`,
  });
}

function checkActivation(kind: unknown): void {
  if (ACTIVATIONS.includes(String(kind))) return;
  throw new FpdtError(`model config: activation '${String(kind)}' is not supported`, {
    code: 'unsupported',
    hint: `supported: ${ACTIVATIONS.join(', ')}`,
  });
}

function checkRotated(dims: number, headDim: number): void {
  if (dims % 2 === 0 && dims > 0 && dims <= headDim) return;
  throw new FpdtError(`model config: RoPE of ${dims} dimensions of a head of ${headDim}`, {
    code: 'unsupported',
    hint: 'an even number of them is, which partial_rotary_factor, head_dim or rotary_dim say',
  });
}

function step(
  op: PrimitiveName,
  of: readonly string[],
  to: string,
  width: number,
  weights: readonly WeightUse[],
  attributes: StepAttributes,
): Step {
  return { op, of, to, width, weights, attributes };
}

/** Weights are [outputs, inputs], transposed ones [inputs, outputs]; of `width` outputs a step may use `part`. */
function linearWeights(one: WrittenStep, inputs: number, settings: Settings): { weights: readonly WeightUse[]; width: number } {
  const outputs = numberOf(one, 'width', settings);
  const part = one.part as readonly [Expression, Expression] | undefined;
  const [start, end] = part === undefined ? [0, outputs] : part.map((edge) => Number(evaluate(edge, settings)));
  const cut = part === undefined ? {} : { part: [start, end] as [number, number] };
  const shape = one.transposed === true ? [inputs, outputs] : [outputs, inputs];
  const hasBias = one.bias !== undefined && isTrue(evaluate(one.bias, settings));
  const weights = [
    { name: `${one.weight}.weight`, shape, ...cut },
    ...(hasBias ? [{ name: `${one.weight}.bias`, shape: [outputs], ...cut }] : []),
  ];
  return { weights, width: (end as number) - (start as number) };
}

function normWeights(one: WrittenStep, size: number, settings: Settings): readonly WeightUse[] {
  if (one.weight === undefined) return [];
  const hasBias = one.bias !== undefined && isTrue(evaluate(one.bias, settings));
  return ['weight', ...(hasBias ? ['bias'] : [])].map((name) => ({ name: `${one.weight}.${name}`, shape: [size] }));
}

function numberOf(one: WrittenStep, key: string, settings: Settings): number {
  const value = evaluate((one[key] ?? null) as Expression, settings);
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new RangeError(`a family's ${one.op} to ${one.to} has no number ${key}`);
  return value;
}
