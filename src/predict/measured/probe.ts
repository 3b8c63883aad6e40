/** What the worker measured on small plans, by names that `python/fpdt/measure/probe_run.py` gives. */
import type { Op } from '../../schedule/op.js';
import type { Rates } from '../../spec/types.js';
import type { PredictInput } from '../input.js';
import { predictRun } from '../predict.js';

/** A plan that was run, and numbers of one step of one rank. */
export interface Probe {
  readonly plan: PredictInput;
  readonly numbers: Readonly<Record<string, number>>;
}

/** How often something ran in a step, and its seconds in all. */
export interface Timed {
  readonly count: number;
  readonly seconds: number;
}

export function timed({ numbers }: Probe, name: string): Timed {
  return { count: numbers[`${name}/count`] ?? 0, seconds: numbers[`${name}/seconds`] ?? 0 };
}

/** Parts of the names of what was timed under one prefix, which they do not have. */
export function timedUnder(probe: Probe, prefix: string): readonly { readonly parts: readonly string[]; readonly timed: Timed }[] {
  return Object.keys(probe.numbers)
    .filter((name) => name.startsWith(`${prefix}/`) && name.endsWith('/seconds'))
    .map((name) => name.slice(0, -'/seconds'.length))
    .map((name) => ({ parts: name.slice(prefix.length + 1).split('/'), timed: timed(probe, name) }));
}

/** Ops that were timed one by one. */
export function timedOps(probe: Probe): readonly { readonly op: Op; readonly timed: Timed }[] {
  const sections = new Map(probe.plan.sections.map((section) => [section.name, section]));
  return timedUnder(probe, 'op').map(({ parts: [name = '', number], timed: time }) => {
    const op = sections.get(name)?.ops[Number(number)];
    if (op === undefined) throw new RangeError(`op ${number} of ${name} was measured, which the plan has not`);
    return { op, timed: time };
  });
}

/** What the plan of a probe would take at these rates. */
export function plannedKinds({ plan }: Probe, rates: Rates): ReturnType<typeof predictRun>['byKind'] {
  return predictRun({ ...plan, cluster: { ...plan.cluster, rates } }).byKind;
}

export function sumOf<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((sum, item) => sum + of(item), 0);
}
