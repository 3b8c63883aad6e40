/** The step program: which section runs when, on which instances, for which layer. */

/** One run of a section. */
export interface Call {
  readonly section: string;
  /** Instances that the section's parameters are bound to. */
  readonly args: readonly number[];
  /** Whose weights the ops use. */
  readonly layer?: number;
  /** `plan`: the worker runs it; `zero`: ZeRO's own hooks do, so it is only placed and priced. */
  readonly owner: 'plan' | 'zero';
  /**
   * For each stream of the plan a bit mask of the streams whose earlier work, up to this call, must be complete before the first op
   * of this call starts on it. Found by the layout (address/entryWaits.ts).
   */
  readonly waits: readonly number[];
}

export type Module = 'embed' | 'layer' | 'head' | 'end';

/** What one autograd node runs; `end` is the engine's step, once after the accumulation steps. */
export interface Turn {
  readonly module: Module;
  readonly layer?: number;
  readonly direction: 'forward' | 'backward';
  readonly calls: readonly Call[];
}

/** One micro-step in execution order, then `end`. */
export interface Program {
  readonly turns: readonly Turn[];
}

export interface Table {
  readonly name: string;
  readonly dtype: 'int64' | 'float32';
  /** In rows. */
  readonly capacity: number;
  readonly buffer: number;
}

/** `layer 3 backward`, `head forward`. */
export function turnName({ module, layer, direction }: Pick<Turn, 'module' | 'layer' | 'direction'>): string {
  return layer === undefined ? `${module} ${direction}` : `${module} ${layer} ${direction}`;
}
