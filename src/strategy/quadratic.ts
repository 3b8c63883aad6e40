/** Lagrange's polynomial through values at 0, 1 and 2; where there is one value, that value everywhere. */
export function quadratic([first = 0, second = first, third = second]: readonly number[], x: number): number {
  return first + x * (second - first) + ((x * (x - 1)) / 2) * (third - 2 * second + first);
}
