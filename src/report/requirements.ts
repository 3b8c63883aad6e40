/** What a plan must keep to, as a line of text: `stepSeconds<60,hbm<75GiB,tokensPerSecond>1000`. */
import { POOL_NAMES } from '../catalog/pools.js';
import { planCost } from '../plan/cost.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import { formatBytes, formatSeconds, parseBytes } from '../spec/sizes.js';

export const OPERATORS = ['<=', '>=', '<', '>'] as const;
type Operator = (typeof OPERATORS)[number];

/** `limit` is in the quantity's unit: seconds, bytes, or a plain number. */
export interface Requirement {
  /** As it was written. */
  readonly text: string;
  readonly name: string;
  readonly operator: Operator;
  readonly limit: number;
}

export interface CheckedRequirement extends Requirement {
  /** The plan's, in the unit of the limit. */
  readonly value: number;
  readonly met: boolean;
}

type Judged = Pick<ExecutionPlan, 'cluster' | 'prediction' | 'memory'>;

interface Unit {
  readonly parse: (text: string) => number;
  readonly format: (value: number) => string;
  readonly example: string;
}

interface Quantity {
  readonly unit: Unit;
  /** Undefined where it takes a price and there is none. */
  readonly value: (plan: Judged, usdPerGpuHour?: number) => number | undefined;
}

const UNITS_OF_TIME: Readonly<Record<string, number>> = { us: 1e-6, ms: 1e-3, '': 1, s: 1, min: 60, h: 3600 };

const SECONDS: Unit = {
  parse: (text) => {
    const [, number = '', unit = ''] = /^([\d.e+-]+?)\s*(us|ms|s|min|h)?$/i.exec(text) ?? [];
    return toNumber(number) * (UNITS_OF_TIME[unit.toLowerCase()] ?? Number.NaN);
  },
  format: formatSeconds,
  example: '60, 90s, 1.5h',
};
const BYTES: Unit = { parse: (text) => parseBytes(text, 'the limit'), format: formatBytes, example: '75GiB, 80530636800' };
const NUMBER: Unit = { parse: toNumber, format: (value) => value.toPrecision(4), example: '1000, 2.5e3' };
const SHARE: Unit = {
  parse: (text) => (text.endsWith('%') ? toNumber(text.slice(0, -1)) / 100 : toNumber(text)),
  format: (value) => `${(100 * value).toFixed(1)}%`,
  example: '40%, 0.4',
};

/** A pool's is the peak of a rank, 0 where the cluster has none. */
const QUANTITIES: ReadonlyMap<string, Quantity> = new Map<string, Quantity>([
  ['stepSeconds', { unit: SECONDS, value: ({ prediction }) => prediction.stepSeconds }],
  ['tokensPerSecond', { unit: NUMBER, value: ({ prediction }) => prediction.tokensPerSecond }],
  ['mfu', { unit: SHARE, value: ({ prediction }) => prediction.mfu.causalModel }],
  ['exposedCopySeconds', { unit: SECONDS, value: ({ prediction }) => prediction.exposedCopySeconds }],
  ['hostBoundSeconds', { unit: SECONDS, value: ({ prediction }) => prediction.hostBoundSeconds }],
  ...POOL_NAMES.map((name): [string, Quantity] => [
    name,
    { unit: BYTES, value: ({ memory }) => memory.pools.find(({ pool }) => pool === name)?.peakBytes ?? 0 },
  ]),
  ['gpuHoursPerStep', { unit: NUMBER, value: (plan) => planCost(plan).gpuHoursPerStep }],
  ['gpuHoursPerBillionTokens', { unit: NUMBER, value: (plan) => planCost(plan).gpuHoursPerBillionTokens }],
  ['usdPerStep', { unit: NUMBER, value: (plan, price) => planCost(plan, price).usdPerStep }],
  ['usdPerBillionTokens', { unit: NUMBER, value: (plan, price) => planCost(plan, price).usdPerBillionTokens }],
]);

/** Requirements with commas between them. Throws `invalid-requirement` with the names, operators or units that are known. */
export function parseRequirements(text: string): readonly Requirement[] {
  return text.split(',').map((part) => parseRequirement(part.trim()));
}

/** In their order. Throws `invalid-requirement` for one of money where there is no price. */
export function checkRequirements(
  plan: Judged,
  requirements: readonly Requirement[],
  usdPerGpuHour?: number,
): readonly CheckedRequirement[] {
  return requirements.map((requirement) => {
    const value = quantityNamed(requirement.name).value(plan, usdPerGpuHour);
    if (value === undefined) throw invalid(`${requirement.name} takes the price of a GPU-hour`, 'give it: --price 2.5, say');
    return { ...requirement, value, met: isMet(value, requirement) };
  });
}

export function requirementsToText(checked: readonly CheckedRequirement[]): string {
  const width = Math.max(...checked.map(({ text }) => text.length));
  const line = ({ text, name, value, met }: CheckedRequirement): string =>
    `Require     ${(met ? 'met' : 'NOT MET').padEnd(7)}  ${text.padEnd(width)}  ${quantityNamed(name).unit.format(value)}`;
  return checked.map(line).join('\n');
}

function parseRequirement(text: string): Requirement {
  const [, name, operator, limitText] = /^([^<>=\s]+)\s*(<=|>=|<|>)\s*([^<>=]+)$/.exec(text) ?? [];
  if (name === undefined || operator === undefined || limitText === undefined) {
    throw invalid(`'${text}' is not of the form NAME OPERATOR LIMIT`, `operators: ${OPERATORS.join(' ')}; names: ${names()}`);
  }
  const { unit } = quantityNamed(name);
  return { text, name, operator: operator as Operator, limit: parseLimit(limitText.trim(), text, unit) };
}

function parseLimit(limitText: string, text: string, { parse, example }: Unit): number {
  const limit = attempt(() => parse(limitText));
  if (limit !== undefined && Number.isFinite(limit) && limit >= 0) return limit;
  throw invalid(`'${text}': expected a limit of at least 0, found '${limitText}'`, `write it as ${example}`);
}

/** Sizes have errors of their own, which know nothing of requirements. */
function attempt(parse: () => number): number | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    return undefined;
  }
}

function quantityNamed(name: string): Quantity {
  const quantity = QUANTITIES.get(name);
  if (quantity !== undefined) return quantity;
  const nearest = nearestKey(name, QUANTITIES.keys());
  throw invalid(`nothing of a plan is called '${name}'`, `${nearest === undefined ? '' : `did you mean '${nearest}'? `}names: ${names()}`);
}

function isMet(value: number, { operator, limit }: Requirement): boolean {
  switch (operator) {
    case '<':
      return value < limit;
    case '<=':
      return value <= limit;
    case '>':
      return value > limit;
    case '>=':
      return value >= limit;
  }
}

/** Unlike Number(), not of nothing. */
function toNumber(text: string): number {
  return /\d/.test(text) ? Number(text) : Number.NaN;
}

function names(): string {
  return [...QUANTITIES.keys()].join(', ');
}

function invalid(problem: string, hint: string): FpdtError {
  return new FpdtError(`requirement: ${problem}`, { code: 'invalid-requirement', hint });
}
