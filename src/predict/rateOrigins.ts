/** Which rates of a prediction are measured, and which come from somebody else or from nobody. */
import type { ClusterSpec, RateOrigins, RateOrigin, Rates } from '../spec/types.js';

/** Of every rate that is there: what the cluster says of it, else of all. One that is 0, or an empty table, costs nothing and has none. */
export function rateOrigins({ rates, rateOrigins: known = {}, ratesProvenance }: ClusterSpec): RateOrigins {
  const all: RateOrigin = ratesProvenance === 'measured' ? 'measured' : 'assumed';
  const names = (Object.keys(rates) as (keyof Rates)[]).filter((name) => !isNothing(rates[name]));
  return Object.fromEntries(names.map((name) => [name, known[name] ?? all]));
}

function isNothing(rate: Rates[keyof Rates]): boolean {
  return typeof rate === 'number' ? rate === 0 : rate.length === 0;
}
