/** Canonical JSON: the same value is the same bytes in every language, so that its digest means something. */

/**
 * Keys sorted by UTF-16 code unit, no white space, non-ASCII characters as themselves, numbers as JavaScript prints them.
 * Throws a TypeError for what JSON cannot say: NaN, infinities, undefined, functions.
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') return numberText(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value === 'object') return objectText(value as Readonly<Record<string, unknown>>);
  throw new TypeError(`canonical JSON cannot hold a value of type ${typeof value}`);
}

function numberText(value: number): string {
  if (!Number.isFinite(value)) throw new TypeError(`canonical JSON cannot hold the number ${value}`);
  return JSON.stringify(value);
}

/** A key whose value is undefined is absent, as in JSON.stringify. */
function objectText(value: Readonly<Record<string, unknown>>): string {
  const keys = Object.keys(value).filter((key) => value[key] !== undefined);
  return `{${keys
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonicalJson(value[key])}`)
    .join(',')}}`;
}
