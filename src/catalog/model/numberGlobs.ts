/** Patterns of characters that together match the whole numbers of a range: 0 to 31 as `[0-9]`, `[12][0-9]` and `3[01]`. */

/** Of numbers as they are written, `last` no smaller. */
export function numberGlobs(first: string, last: string): readonly string[] {
  if (first.length === last.length) return sameLength(first, last);
  return [...sameLength(first, '9'.repeat(first.length)), ...numberGlobs(`1${'0'.repeat(first.length)}`, last)];
}

function sameLength(first: string, last: string): readonly string[] {
  const [low, high, rest] = [Number(first[0]), Number(last[0]), first.length - 1];
  if (rest === 0) return [digits(low, high)];
  const [zeros, nines] = ['0'.repeat(rest), '9'.repeat(rest)];
  const under = (digit: number, from: string, to: string): readonly string[] => sameLength(from, to).map((glob) => `${digit}${glob}`);
  if (low === high && (first.slice(1) !== zeros || last.slice(1) !== nines)) return under(low, first.slice(1), last.slice(1));
  const start = first.slice(1) === zeros ? [] : under(low, first.slice(1), nines);
  const end = last.slice(1) === nines ? [] : under(high, zeros, last.slice(1));
  const [from, to] = [low + Math.sign(start.length), high - Math.sign(end.length)];
  return [...start, ...(from <= to ? [`${digits(from, to)}${'[0-9]'.repeat(rest)}`] : []), ...end];
}

function digits(low: number, high: number): string {
  if (low === high) return String(low);
  return low + 1 === high ? `[${low}${high}]` : `[${low}-${high}]`;
}
