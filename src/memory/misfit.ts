/** Why a plan does not fit, in numbers, and the smallest change that makes it. */
import { poolLabel } from '../catalog/pools.js';
import { FpdtError } from '../spec/errors.js';
import { formatBytes } from '../spec/sizes.js';
import type { MemoryInstant, MemoryItem, MemoryLedger, PoolLedger } from './ledger.js';

const NUM_NAMED = 4;

/** `suggestion` is a change that was checked to fit, e.g. `numChunks=16 fits: 71.2 GiB of 79.2 GiB`. */
export function explainMisfit(ledger: MemoryLedger, suggestion?: string): FpdtError {
  const pools = ledger.pools.filter(({ fits }) => !fits);
  const details = pools.map((pool) => ({
    pool: pool.pool,
    needBytes: pool.peakBytes,
    haveBytes: pool.capacityBytes,
    instant: pool.peakInstant,
    biggest: biggest(pool),
  }));
  const message = pools.map((pool) => describePool(pool)).join('; ');
  return new FpdtError(message === '' ? 'the plan fits' : message, {
    code: 'does-not-fit',
    hint: suggestion,
    details: { pools: details },
  });
}

function describePool(pool: PoolLedger): string {
  const items = biggest(pool).map(({ name, bytes }) => `${name} ${formatBytes(bytes)}`);
  const when = (peakInstant(pool)?.items.length ?? 0) > 0 ? ` at ${pool.peakInstant}` : '';
  return (
    `${poolLabel(pool.pool)} does not fit: ${formatBytes(pool.peakBytes)} needed${when}, ` +
    `${formatBytes(pool.capacityBytes)} there; largest: ${items.join(', ')}`
  );
}

function biggest(pool: PoolLedger): readonly MemoryItem[] {
  return [...pool.persistent, ...(peakInstant(pool)?.items ?? [])].toSorted((a, b) => b.bytes - a.bytes).slice(0, NUM_NAMED);
}

function peakInstant(pool: PoolLedger): MemoryInstant | undefined {
  return pool.instants.find(({ name }) => name === pool.peakInstant);
}
