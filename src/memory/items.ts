/** The instants of a step that memory is planned for, and one named number of a plan. */
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
