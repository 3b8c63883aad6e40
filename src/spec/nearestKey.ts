/** No name is longer. */
const LONGEST = 60;

/** The known name nearest to a misspelt one, or undefined when none is near enough to be meant. */
export function nearestKey(given: string, known: Iterable<string>): string | undefined {
  const wanted = normalize(given);
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(Math.min(given.length, LONGEST) / 3)) + 1;
  for (const candidate of known) {
    const other = normalize(candidate);
    // Of texts of any length, which a user may give, most are told apart by it.
    if (Math.abs(other.length - wanted.length) >= bestDistance) continue;
    const distance = editDistance(wanted, other);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** `seqLen`, `seq_len` and `seq-len` are the same word. */
function normalize(name: string): string {
  return name.toLowerCase().replaceAll(/[_-]/g, '');
}

/** Insertions, deletions, substitutions and swaps of neighbours each cost 1 (optimal string alignment). */
export function editDistance(a: string, b: string): number {
  let beforeThat: readonly number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substituted = (previous[column - 1] as number) + (a[row - 1] === b[column - 1] ? 0 : 1);
      const isSwap = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      const swapped = isSwap ? (beforeThat[column - 2] as number) + 1 : substituted;
      current.push(Math.min(substituted, swapped, (previous[column] as number) + 1, (current[column - 1] as number) + 1));
    }
    beforeThat = previous;
    previous = current;
  }
  return previous[b.length] as number;
}
