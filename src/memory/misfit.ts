/** Why a plan does not fit, in numbers, and the smallest change that makes it. */
import { poolLabel } from '../catalog/pools.js';
import { FpdtError } from '../spec/errors.js';
import { formatBytes } from '../spec/sizes.js';
import { excessBytes, LOAD, type MemoryItem, type MemoryLedger, type PoolLedger, peakItems, roomBytes } from './ledger.js';

const NUM_NAMED = 4;
const NEAR = 1.01;
const LOAD_HINT = 'no strategy changes what start-up needs: shard the weights with ZeRO stage 3, or over more ranks';

/** A pool that a strategy needs more of than there is. */
export interface PoolMisfit {
  readonly pool: string;
  readonly needBytes: number;
  readonly haveBytes: number;
  readonly instant: PoolLedger['peakInstant'];
  /** The largest items of that instant, largest first. */
  readonly biggest: readonly MemoryItem[];
}

/** Changes that were checked to fit: in words, e.g. `numChunks=16 fits: 71.2 GiB of 79.2 GiB`, and for programs. */
export interface Suggestion {
  readonly hint: string;
  readonly changes: readonly object[];
}

export function explainMisfit(ledger: MemoryLedger, suggestion?: Suggestion): FpdtError {
  const pools = ledger.pools.filter(({ fits }) => !fits);
  const message = pools.map((pool) => describePool(pool)).join('; ');
  return new FpdtError(message === '' ? 'the plan fits' : message, {
    code: 'does-not-fit',
    hint: suggestion?.hint ?? (pools.some(({ peakInstant }) => peakInstant === LOAD) ? LOAD_HINT : undefined),
    details: { pools: misfitPools(ledger), ...(suggestion === undefined ? {} : { changes: suggestion.changes }) },
  });
}

export function misfitPools({ pools }: MemoryLedger): readonly PoolMisfit[] {
  const missing = pools.filter(({ fits }) => !fits);
  return missing.map((pool) => ({
    pool: pool.pool,
    needBytes: pool.peakBytes,
    haveBytes: roomBytes(pool),
    instant: pool.peakInstant,
    biggest: biggest(pool),
  }));
}

function describePool(pool: PoolLedger): string {
  const items = biggest(pool).map(({ name, bytes }) => `${name} ${formatBytes(bytes)}`);
  const [need, have] = [formatBytes(pool.peakBytes), formatBytes(roomBytes(pool))];
  return (
    `${poolLabel(pool.pool)} does not fit: ${need} needed${whenText(pool)}, ${have} there${reserveText(pool)}${edgeText(pool)}; ` +
    `largest: ${items.join(', ')}`
  );
}

/** Near the edge of what fits, need and room read alike. */
function edgeText(pool: PoolLedger): string {
  return pool.peakBytes < NEAR * roomBytes(pool) ? `, ${formatBytes(excessBytes(pool))} too much` : '';
}

function reserveText({ reserveBytes }: PoolLedger): string {
  return reserveBytes === 0 ? '' : ` beside ${formatBytes(reserveBytes)} kept free (hbmReserve)`;
}

function whenText(pool: PoolLedger): string {
  if (pool.peakInstant === LOAD) return ` at ${LOAD}, before the first step`;
  const comesAndGoes = pool.instants.some(({ name, items }) => name === pool.peakInstant && items.length > 0);
  return comesAndGoes ? ` at ${pool.peakInstant}` : '';
}

function biggest(pool: PoolLedger): readonly MemoryItem[] {
  return [...peakItems(pool)].sort((a, b) => b.bytes - a.bytes).slice(0, NUM_NAMED);
}
