/** Where a misfit turns into a fit, guessed from what was looked at. */

/** Where the line through two points, tokens of a chunk and excess bytes, is zero; of one point, far beyond it on the side of zero. */
export function zeroOf(looked: readonly { readonly tokens: number; readonly excess: number }[]): number {
  const [first, second] = looked;
  if (first === undefined || second === undefined) return first === undefined || first.excess > 0 ? 0 : Number.POSITIVE_INFINITY;
  const perToken = (second.excess - first.excess) / (second.tokens - first.tokens);
  return perToken > 0 ? second.tokens - second.excess / perToken : 0;
}
