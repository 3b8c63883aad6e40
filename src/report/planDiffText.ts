/** Two plans' differences for people: a part for each of inputs, strategy, memory and time. */
import { poolLabel } from '../catalog/pools.js';
import { describe } from '../spec/describe.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import { isSame, type NumberChange, type PlanDiff, type PoolChange, type SettingChange } from './planDiff.js';
import { formatTable } from './table.js';

/** `a` and `b` are what the plans are called. */
export function planDiffToText(diff: PlanDiff, a: string, b: string): string {
  if (isSame(diff)) return `${a} and ${b} are the same plan`;
  const { inputs, strategy, memory, step, kindSeconds, sameDigest } = diff;
  return [
    `${a} -> ${b}${sameDigest ? ': the same is executed' : ''}`,
    ...settingLines('Inputs', inputs),
    ...settingLines('Strategy', strategy),
    ...memory.flatMap(poolLines),
    ...numberLines('Step', 'a step', step, formatNumber),
    ...numberLines('Time by op kind', 'op kind', kindSeconds, formatSeconds),
  ].join('\n');
}

function settingLines(title: string, changes: readonly SettingChange[]): readonly string[] {
  if (changes.length === 0) return [];
  const width = Math.max(...changes.map(({ path }) => path.length));
  return ['', title, ...changes.map(({ path, a, b }) => `  ${path.padEnd(width)}  ${valueText(a)} -> ${valueText(b)}`)];
}

function valueText(value: unknown): string {
  return value === null ? 'none' : describe(value);
}

function poolLines({ pool, peakBytes, capacityBytes, peakInstant, items }: PoolChange): readonly string[] {
  const peak = (side: 'a' | 'b'): string => {
    const instant = peakInstant[side];
    return instant === null ? 'none' : `${formatBytes(peakBytes[side])} of ${formatBytes(capacityBytes[side])} at ${instant}`;
  };
  const title = `${poolLabel(pool)} per rank: ${peak('a')} -> ${peak('b')}`;
  return items.length === 0 ? ['', title] : numberLines(title, 'item', items, formatBytes);
}

function numberLines(title: string, what: string, changes: readonly NumberChange[], format: (value: number) => string): readonly string[] {
  if (changes.length === 0) return [];
  const rows = changes.map(({ name, a, b }) => [name, format(a), format(b), `${b > a ? '+' : '-'}${format(Math.abs(b - a))}`]);
  return ['', title, formatTable([what, 'a', 'b', 'change'], rows)];
}

function formatNumber(value: number): string {
  return value.toPrecision(4);
}
