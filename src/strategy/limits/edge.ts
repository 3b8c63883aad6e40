/** Bisection over whole numbers. */

/**
 * A number that fits and whose neighbour towards `misfit` does not: the only one between the two where fitting changes once between
 * them, and one of several where it changes more often. `fit` fits, `misfit` does not; either may be the larger.
 */
export function edge(fit: number, misfit: number, fits: (value: number) => boolean): number {
  let [yes, no] = [fit, misfit];
  while (Math.abs(no - yes) > 1) {
    const middle = Math.trunc((yes + no) / 2);
    if (fits(middle)) yes = middle;
    else no = middle;
  }
  return yes;
}

/** Each value is asked for once. */
export function remembered<T>(ask: (value: number) => T): (value: number) => T {
  const known = new Map<number, T>();
  return (value) => {
    const old = known.get(value);
    if (old !== undefined) return old;
    const answer = ask(value);
    known.set(value, answer);
    return answer;
  };
}
