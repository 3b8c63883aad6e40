/** Strided copies that put a pair of an exchange into its message, or take it out: twin of python/fpdt/ops/exchange.py. */

export interface ExchangeCopies {
  readonly packed: number;
  readonly unpacked: number;
  /** Some head stands in several places: what comes back is summed, in fp32. */
  readonly summed: boolean;
}

/** Consecutive heads, or one that is repeated, at consecutive places of a rank's list. `first` below 0: padding. */
interface Run {
  readonly rank: number;
  readonly place: number;
  readonly first: number;
  readonly numHeads: number;
  readonly repeated: boolean;
}

/** Of all heads, or of one of the groups that each rank's own are cut into. */
export type CopiesOf = (groups?: number, group?: number) => ExchangeCopies;

/** Each found once. `lists`: for each rank the heads that it owns, of a head map. */
export function copiesOf(lists: readonly (readonly number[])[]): CopiesOf {
  const known = new Map<string, ExchangeCopies>();
  return (groups = 1, group = 0) => {
    const key = `${group}/${groups}`;
    const found = known.get(key) ?? exchangeCopies(lists.map((own) => groupOf(own, groups, group)));
    known.set(key, found);
    return found;
  };
}

function groupOf(own: readonly number[], groups: number, group: number): readonly number[] {
  const size = own.length / groups;
  return own.slice(group * size, (group + 1) * size);
}

/** `lists`: for each rank the heads that it owns, of a head map. */
export function exchangeCopies(lists: readonly (readonly number[])[]): ExchangeCopies {
  const runs = lists.flatMap((own, rank) => runsOf(rank, own));
  const pieces = piecesOf(runs);
  const unpacked = pieces.reduce((sum, piece) => sum + numAlike(piece), 0);
  const padding = runs.filter(({ first }) => first < 0);
  return { packed: Math.min(numAlike(runs), unpacked + numAlike(padding)), unpacked, summed: pieces.length > 1 };
}

function runsOf(rank: number, heads: readonly number[]): readonly Run[] {
  const runs: Run[] = [];
  for (const [place, head] of heads.entries()) {
    const last = runs.at(-1);
    const replace = (change: Partial<Run>): number => runs.splice(-1, 1, { ...(last as Run), ...change }).length;
    if (last !== undefined && head === last.first && (last.repeated || last.numHeads === 1))
      replace({ numHeads: last.numHeads + 1, repeated: true });
    else if (last !== undefined && head >= 0 && last.first >= 0 && !last.repeated && head === last.first + last.numHeads)
      replace({ numHeads: last.numHeads + 1 });
    else runs.push({ rank, place, first: head, numHeads: 1, repeated: false });
  }
  return runs;
}

/** Without padding, cut so that every run of the n-th list holds the n-th piece of each of its heads. */
function piecesOf(runs: readonly Run[]): readonly (readonly Run[])[] {
  const seen = new Map<number, number>();
  const pieces: Run[][] = [];
  for (const run of runs.filter(({ first }) => first >= 0)) {
    let last = -1;
    for (let i = 0; i < run.numHeads; i++) {
      const head = run.repeated ? run.first : run.first + i;
      const number = seen.get(head) ?? 0;
      seen.set(head, number + 1);
      const mine = pieces[number] ?? [];
      pieces[number] = mine;
      const before = mine.at(-1);
      if (number === last && !run.repeated && before !== undefined) mine[mine.length - 1] = { ...before, numHeads: before.numHeads + 1 };
      else mine.push({ rank: run.rank, place: run.place + i, first: head, numHeads: 1, repeated: false });
      last = number;
    }
  }
  return pieces;
}

/** Runs at the same places and of the same lengths are one copy while ranks and heads go up in equal steps. */
function numAlike(runs: readonly Run[]): number {
  const byShape = new Map<string, Run[]>();
  for (const run of runs) {
    const shape = [run.place, run.numHeads, run.repeated, run.first < 0].join(' ');
    byShape.set(shape, [...(byShape.get(shape) ?? []), run]);
  }
  return [...byShape.values()].reduce((sum, same) => sum + numSeries(same), 0);
}

function numSeries(runs: readonly Run[]): number {
  let [count, step] = [0, undefined as readonly [number, number] | undefined];
  let last: Run | undefined;
  for (const run of runs) {
    const found = last === undefined ? undefined : ([run.rank - last.rank, run.first - last.first] as const);
    const continues = found !== undefined && found[1] >= 0 && (step === undefined || (step[0] === found[0] && step[1] === found[1]));
    if (!continues) count += 1;
    step = continues ? found : undefined;
    last = run;
  }
  return count;
}
