/** The instants of a step that memory is planned for, when the program is at each, and one named number of a plan. */
import type { Provenance } from '../spec/types.js';

export const INSTANTS = ['embed', 'layerForward', 'loss', 'layerBackward', 'gradientReduce', 'optimizerStep'] as const;
export type InstantName = (typeof INSTANTS)[number];
/** Those of a plan that evaluates. No gradient is there then. */
export const EVALUATION_INSTANTS = ['evaluateLayer', 'evaluateLoss'] as const;
export type EvaluationInstant = (typeof EVALUATION_INSTANTS)[number];
/** The peak of start-up, before the arenas are there. No turn of the program is at it. */
export const LOAD = 'load';

/** A turn of the program, as schedule/program.ts has it. */
export interface TurnShape {
  readonly module: 'embed' | 'layer' | 'head' | 'end';
  readonly direction: 'forward' | 'backward';
}

const INSTANT_OF_TURN: Readonly<Record<TurnShape['module'], Readonly<Record<TurnShape['direction'], InstantName>>>> = {
  embed: { forward: 'embed', backward: 'gradientReduce' },
  layer: { forward: 'layerForward', backward: 'layerBackward' },
  head: { forward: 'loss', backward: 'loss' },
  end: { forward: 'optimizerStep', backward: 'optimizerStep' },
};

export function instantOf({ module, direction }: TurnShape): InstantName {
  return INSTANT_OF_TURN[module][direction];
}

/** Of a turn of the program that evaluates. */
export function evaluationInstantOf({ module }: Pick<TurnShape, 'module'>): EvaluationInstant {
  return module === 'head' ? 'evaluateLoss' : 'evaluateLayer';
}

/** One named number of a memory plan, in bytes per rank. */
export interface MemoryItem {
  readonly name: string;
  readonly bytes: number;
  readonly provenance: Provenance;
  /** The formula or source, for a reader. */
  readonly note: string;
}

/**
 * What takes its turn with others within an instant: the largest op, a gather of weights, a reduction of gradients. On the CPU device one
 * thread does one after the other; on a GPU each has a stream, and the caching allocator keeps blocks by stream, so they add up.
 */
export type Moment = 'ops' | 'gather' | 'reduce';

/** What an instant of a step adds; with a moment, only then. `pinned`: in host memory, where the optimizer is. */
export interface InstantItem extends MemoryItem {
  readonly moment?: Moment;
  readonly pinned?: true;
}

/** An item of a formula, rounded up to whole bytes. */
export function derived(name: string, bytes: number, note: string): MemoryItem {
  return { name, bytes: Math.ceil(bytes), provenance: 'derived', note };
}

export function derivedAt(moment: Moment, name: string, bytes: number, note: string): InstantItem {
  return { ...derived(name, bytes, note), moment };
}

export function nonEmpty<T extends MemoryItem>(items: readonly T[]): readonly T[] {
  return items.filter(({ bytes }) => bytes > 0);
}

export function sumBytes(items: readonly MemoryItem[]): number {
  return items.reduce((total, { bytes }) => total + bytes, 0);
}
