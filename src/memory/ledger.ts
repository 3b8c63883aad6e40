/** What a plan needs of each memory pool: persistent items and the largest of a few named instants. */
import type { Provenance } from '../spec/types.js';

export const INSTANTS = ['embed', 'layerForward', 'loss', 'layerBackward', 'gradientReduce', 'optimizerStep'] as const;
export type InstantName = (typeof INSTANTS)[number];

/** One named number of a memory plan, in bytes per rank. */
export interface MemoryItem {
  readonly name: string;
  readonly bytes: number;
  readonly provenance: Provenance;
  /** The formula or source, for a reader. */
  readonly note: string;
}

/** What is there only at one instant of the step, beside the persistent items. */
export interface MemoryInstant {
  readonly name: InstantName;
  readonly items: readonly MemoryItem[];
  /** Persistent bytes plus these items. */
  readonly totalBytes: number;
}

export interface PoolLedger {
  readonly pool: 'hbm' | 'host';
  readonly capacityBytes: number;
  readonly persistent: readonly MemoryItem[];
  readonly instants: readonly MemoryInstant[];
  readonly peakBytes: number;
  readonly peakInstant: InstantName;
  readonly fits: boolean;
}

export interface MemoryLedger {
  readonly kind: 'memoryLedger';
  readonly fits: boolean;
  readonly hbm: PoolLedger;
  readonly host: PoolLedger;
}
