/** Keys of a config that look like another spelling of one that a family reads, which would otherwise get its default in silence. */
import { FpdtError } from '../../spec/errors.js';
import { editDistance } from '../../spec/nearestKey.js';
import type { JsonObject } from '../../spec/parseJson.js';
import type { Setting } from './settings.js';
import type { WrittenFamily } from './written.js';

const MOST_TYPOS = 2;

/** Words that people use for one another in such keys. */
const SAME: Readonly<Record<string, string>> = {
  n: 'num',
  nb: 'num',
  kv: 'key value',
  heads: 'head',
  layers: 'layer',
  dim: 'size',
  width: 'size',
  act: 'activation',
  attn: 'attention',
  epsilon: 'eps',
  emb: 'embedding',
  embeddings: 'embedding',
  embd: 'embedding',
};

/** Throws `unknown-key` for a key that no family reads as it stands, but nearly so, where the config lacks the key it is near to. */
export function checkKeys({ settings, layerSettings, requires, name }: WrittenFamily, config: JsonObject): void {
  const all = [settings, layerSettings].flatMap((group) => Object.values(group));
  const settled = all.map(keysOf).filter((keys) => keys.length > 0);
  const known = [...settled, ...requires.map(({ key }) => [key.split('.')[0] ?? key])];
  const absent = known.filter((keys) => keys.every((key) => config[key] === undefined)).flat();
  for (const key of Object.keys(config)) {
    if (key.endsWith('_token_id') || known.flat().includes(key)) continue;
    const meant = absent.find((one) => isSpelling(key, one) || editDistance(key, one) <= MOST_TYPOS);
    if (meant === undefined) continue;
    throw new FpdtError(`model config.${key}: ${name} has no such key`, {
      code: 'unknown-key',
      hint: `did you mean '${meant}'? Without it the default would be taken; remove '${key}' if that is right`,
      details: { key, nearest: meant },
    });
  }
}

/** The names of a setting's key. */
function keysOf({ size, number, flag, text }: Setting): readonly string[] {
  return [size ?? number ?? flag ?? text ?? []].flat().map((key) => key.split('.')[0] ?? key);
}

/** The same words but for their forms, in any order, and at most one that is left out. */
function isSpelling(key: string, known: string): boolean {
  const [given, meant] = [wordsOf(key), wordsOf(known)];
  const missing = [...meant].filter((word) => !given.has(word)).length;
  return missing <= 1 && given.size > 1 && [...given].every((word) => meant.has(word));
}

function wordsOf(key: string): ReadonlySet<string> {
  return new Set(key.split('_').flatMap((word) => (SAME[word] ?? word).split(' ')));
}
