/** Texts in quotes, single, double or three, as hjson-py reads them. */

export interface Quoted {
  readonly value: string;
  /** Behind the closing quote. */
  readonly end: number;
}

/** The text whose quote stands at `start`; undefined where it is not closed, or holds what JSON does not know. */
export function hjsonString(text: string, start: number): Quoted | undefined {
  if (text.startsWith(THREE, start)) return longString(text, start);
  const pattern = text[start] === "'" ? SINGLE : DOUBLE;
  pattern.lastIndex = start;
  const quoted = pattern.exec(text)?.[0];
  if (quoted === undefined) return undefined;
  const value = unescaped(quoted.slice(1, -1));
  return value === undefined ? undefined : { value, end: start + quoted.length };
}

const THREE = "'''";
const SINGLE = /'(?:[^'\\\p{Cc}]|\\\P{Cc})*'/uy;
const DOUBLE = /"(?:[^"\\\p{Cc}]|\\\P{Cc})*"/uy;

function unescaped(inner: string): string | undefined {
  const json = inner.replaceAll(/\\'|"|\\[\s\S]/g, (found) => (found === "\\'" ? "'" : found === '"' ? '\\"' : found));
  try {
    return JSON.parse(`"${json}"`) as string;
  } catch {
    return undefined;
  }
}

/** Lines between three quotes, less the indent of the first quote and the last line break. */
function longString(text: string, start: number): Quoted | undefined {
  const close = text.indexOf(THREE, start + THREE.length);
  if (close < 0) return undefined;
  const indent = start - text.lastIndexOf('\n', start - 1) - 1;
  const [first = '', ...rest] = text
    .slice(start + THREE.length, close)
    .replaceAll('\r', '')
    .split('\n');
  const opening = first.trimStart();
  const lines = rest.map((line) => line.replace(new RegExp(`^[ \\t]{0,${indent}}`), ''));
  const value = (opening === '' && rest.length > 0 ? lines : [opening, ...lines]).join('\n');
  return { value: value.endsWith('\n') ? value.slice(0, -1) : value, end: close + THREE.length };
}
