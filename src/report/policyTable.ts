/** Policies side by side, as a table and what keeps some of them from a plan. */
import { poolLabel } from '../catalog/pools.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { PolicyComparison, PolicyRow } from '../strategy/comparePolicies.js';
import { formatTable } from './table.js';

const NONE = '-';

export function policyComparisonToText({ seqLen, numRanks, policies }: PolicyComparison): string {
  const pools = [...new Set(policies.flatMap((row) => row.pools.map(({ pool }) => pool)))];
  const hasPrice = policies.some(({ cost }) => cost?.usdPerBillionTokens !== undefined);
  const cost = hasPrice ? '$ / 1B tokens' : 'GPU h / 1B tokens';
  const head = ['policy', 'fits', 'step', 'tokens/s', 'MFU', ...pools.map(poolLabel), cost, 'longest'];
  return [
    `${seqLen} tokens on ${numRanks} ranks:`,
    formatTable(
      head,
      policies.map((row) => cells(row, pools)),
    ),
    ...policies.flatMap(({ policy, bound }) => (bound === null ? [] : [`${policy}: ${bound.message}`])),
  ].join('\n');
}

function cells({ policy, planOnly, fits, step, cost, pools, longestSeqLen }: PolicyRow, names: readonly string[]): readonly string[] {
  const money = cost?.usdPerBillionTokens ?? cost?.gpuHoursPerBillionTokens;
  return [
    planOnly ? `${policy} (plan-only)` : policy,
    fits ? 'yes' : 'no',
    ...(step === null
      ? [NONE, NONE, NONE]
      : [formatSeconds(step.stepSeconds), step.tokensPerSecond.toPrecision(4), `${(100 * step.mfu.causalModel).toFixed(1)}%`]),
    ...names.map((name) => poolCell(pools.find(({ pool }) => pool === name))),
    money === undefined ? NONE : money.toFixed(0),
    longestSeqLen === null ? NONE : String(longestSeqLen),
  ];
}

function poolCell(use: PolicyRow['pools'][number] | undefined): string {
  return use === undefined ? NONE : `${formatBytes(use.peakBytes)} of ${formatBytes(use.capacityBytes)}`;
}
