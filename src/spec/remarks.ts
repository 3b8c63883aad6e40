/** What a user may not expect of a choice that is legal: it costs something, or has no effect. Each is one sentence. */
import { kvCopies, ownHeads, ownKvHeads, type ParallelLayout, paddedHeads } from './parallelLayout.js';
import type { NamedPool } from './pools.js';
import type { Strategy } from './strategy.js';

export interface RemarkInput {
  readonly layout: ParallelLayout;
  readonly strategy: Strategy;
  readonly pools: readonly NamedPool[];
}

export function remarks({ layout, strategy, pools }: RemarkInput): readonly string[] {
  return [copiesRemark(layout), paddingRemark(layout), tileRemark(strategy, pools)].filter((text) => text !== undefined);
}

function copiesRemark(layout: ParallelLayout): string | undefined {
  const copies = kvCopies(layout);
  if (copies === 1) return undefined;
  const ranks = layout.heads.keyValue.length;
  return `${ranks} sequence parallel ranks hold up to ${copies} copies of a key/value head (${ownKvHeads(layout)} on each rank)`;
}

function paddingRemark(layout: ParallelLayout): string | undefined {
  const padded = paddedHeads(layout);
  if (padded === 0) return undefined;
  const places = layout.heads.query.length * ownHeads(layout);
  return `${padded} of ${places} places for query heads are padding: that share of the attention work is wasted`;
}

function tileRemark({ kvTileChunks, layers }: Strategy, pools: readonly NamedPool[]): string | undefined {
  const onDevice = pools.filter(({ kind }) => kind === 'device').map(({ name }) => name);
  if (kvTileChunks === 1 || layers.some(({ keyValues }) => !onDevice.includes(keyValues))) return undefined;
  return `kvTileChunks=${kvTileChunks} has no effect: keys and values of every layer stay on the device`;
}
