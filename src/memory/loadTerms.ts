/** What the formulas of start-up are written in. */
import { derived, type MemoryItem } from './items.js';
import type { Terms } from './stateTerms.js';

/** On a CPU the host's share is allocated by PyTorch like the device's, and lies with it; see `inPool` in load.ts. */
export type Place = 'device' | 'pinned';

/** Something that is there at one moment of start-up; `passing`: gone soon after. */
export interface Held extends MemoryItem {
  readonly place: Place;
  readonly passing: boolean;
}

export interface LoadTerms extends Terms {
  /** What the device has for PyTorch. */
  readonly deviceBytes: number;
}

export function kept(name: string, bytes: number, note: string, place: Place = 'device'): Held {
  return { ...derived(name, bytes, note), place, passing: false };
}

export function passing(name: string, bytes: number, note: string, place: Place = 'device'): Held {
  return { ...derived(name, bytes, note), place, passing: true };
}
