/** What the ledger reads of a schedule: the largest temporaries of each instant, and how many layers are gathered at once. */
import type { OpKind } from '../catalog/ops/index.js';
import {
  EVALUATION_INSTANTS,
  type EvaluationInstant,
  evaluationInstantOf,
  INSTANTS,
  type InstantName,
  instantOf,
  type TurnShape,
} from './items.js';

/** Structurally a Schedule; the ledger stands before it. */
export interface ScheduleShape {
  readonly sections: readonly { readonly name: string; readonly ops: readonly OpShape[] }[];
  readonly programs: { readonly train: ProgramShape; readonly evaluate?: ProgramShape };
}

interface ProgramShape {
  readonly turns: readonly (TurnShape & { readonly calls: readonly CallShape[] })[];
}

interface OpShape {
  readonly kind: OpKind;
  readonly stream: string;
  readonly scratchBytes: number;
}

interface CallShape {
  readonly section: string;
  readonly layer?: number;
  readonly owner: 'plan' | 'zero';
}

/** The largest op of a stream at an instant. */
export interface Temporary {
  readonly stream: string;
  readonly section: string;
  readonly bytes: number;
}

export interface ScheduleUse {
  readonly temporaries: Readonly<Record<InstantName, readonly Temporary[]>>;
  /** Layers whose weights a backward turn gathers beside its own, at most, to rebuild the inputs of a segment. */
  readonly extraLayers: number;
  /** Temporaries of the program that evaluates, where there is one. */
  readonly evaluation?: Readonly<Record<EvaluationInstant, readonly Temporary[]>>;
}

export function scheduleUse({ sections, programs }: ScheduleShape): ScheduleUse {
  const largest = new Map(sections.map(({ name, ops }) => [name, largestByStream(name, ops)] as const));
  const temporariesOf = <Name extends string>(
    { turns }: ProgramShape,
    names: readonly Name[],
    nameOf: (turn: TurnShape) => Name,
  ): Readonly<Record<Name, readonly Temporary[]>> => {
    const found = new Map<Name, Map<string, Temporary>>(names.map((name) => [name, new Map()]));
    for (const turn of turns) {
      const byStream = found.get(nameOf(turn)) ?? new Map<string, Temporary>();
      for (const { section } of turn.calls) keepLargest(byStream, largest.get(section)?.values() ?? []);
    }
    return Object.fromEntries([...found].map(([name, byStream]) => [name, [...byStream.values()]])) as unknown as Record<
      Name,
      readonly Temporary[]
    >;
  };
  const { train, evaluate } = programs;
  return {
    temporaries: temporariesOf(train, INSTANTS, instantOf),
    extraLayers: extraLayers({ sections, programs }),
    ...(evaluate === undefined ? {} : { evaluation: temporariesOf(evaluate, EVALUATION_INSTANTS, evaluationInstantOf) }),
  };
}

function largestByStream(section: string, ops: readonly OpShape[]): ReadonlyMap<string, Temporary> {
  const byStream = new Map<string, Temporary>();
  for (const { stream, scratchBytes } of ops) {
    if (scratchBytes > (byStream.get(stream)?.bytes ?? 0)) byStream.set(stream, { stream, section, bytes: scratchBytes });
  }
  return byStream;
}

function keepLargest(byStream: Map<string, Temporary>, more: Iterable<Temporary>): void {
  for (const one of more) if (one.bytes > (byStream.get(one.stream)?.bytes ?? 0)) byStream.set(one.stream, one);
}

/** A gather is one call ahead of the layer that needs it, so that two rebuilt layers may be there beside the turn's own. */
function extraLayers({ sections, programs }: ScheduleShape): number {
  const kinds = new Map(sections.map(({ name, ops }) => [name, ops[0]?.kind] as const));
  let most = 0;
  for (const { calls } of programs.train.turns) {
    const held = new Set<number | undefined>();
    for (const { section, layer, owner } of calls) {
      if (owner !== 'plan') continue;
      if (kinds.get(section) === 'gather') held.add(layer);
      if (kinds.get(section) === 'release') held.delete(layer);
      most = Math.max(most, held.size);
    }
  }
  return most;
}
