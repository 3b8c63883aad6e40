/** JSON files of a user: of a size that such files have, and text. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { FpdtError } from './errors.js';
import { parseJsonText } from './jsonText.js';

/** A hundred times what such files are. */
const MAX_BYTES = 4 * 1024 ** 2;

/** The value of a JSON file; `what` names it in errors, e.g. `model config`. */
export function readJsonFile(path: string, what: string): unknown {
  return readFileAs(parseJsonText, path, what);
}

/** What `parse` makes of the text of a file, which gets the file's name for its errors. */
export function readFileAs<T>(parse: (text: string, name: string) => T, path: string, what: string): T {
  const text = readTextFile(path, what);
  const name = `${what} '${path}'`;
  const kind = kindOf(text);
  if (kind === undefined) return parse(text, name);
  throw new FpdtError(`${name}, line 1: expected a JSON object, found ${kind}`, {
    code: 'not-json',
    hint: `give the path of the JSON file for the ${what}`,
    details: { path },
  });
}

/** A path as it is, or the file `name` in it where it is a folder. */
export function fileOf(path: string, name: string): string {
  return isFolder(path) ? join(path, name) : path;
}

export function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Through a handle: what is no plain file has no size, and one that never ends is not read to its end. */
export function readTextFile(path: string, what: string): string {
  let handle: number | undefined;
  try {
    handle = openSync(path, 'r');
    if (fstatSync(handle).isDirectory()) throw new Error('it is a folder');
    return readBounded(handle).toString('utf8');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FpdtError(`${what}: cannot read '${path}': ${reason}`, {
      code: 'file-not-readable',
      hint: `give the path of an existing JSON file for the ${what}`,
      details: { path },
      cause,
    });
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
}

function readBounded(handle: number): Buffer {
  if (fstatSync(handle).size > MAX_BYTES) throw tooLarge(fstatSync(handle).size);
  const bytes = Buffer.alloc(MAX_BYTES + 1);
  let length = 0;
  for (;;) {
    const count = readSync(handle, bytes, length, bytes.length - length, null);
    length += count;
    if (length > MAX_BYTES) throw tooLarge(length);
    if (count === 0) return bytes.subarray(0, length);
  }
}

function tooLarge(bytes: number): Error {
  return new Error(`it has ${bytes} bytes or more, of ${MAX_BYTES} that such a file may have`);
}

/** A safetensors file begins with a length of 8 bytes; what is no UTF-8 is read as U+FFFD. */
const NO_TEXT = ['\0', '\uFFFD'];

/** Files that people give in the place of a JSON one. */
function kindOf(text: string): string | undefined {
  if (/^\s*<(?:!doctype|html|head|\?xml)/i.test(text)) return 'a web page (an error page that was saved, perhaps)';
  if (text.startsWith('version https://git-lfs')) return 'a pointer of git-lfs: the file itself was not fetched';
  if (NO_TEXT.some((character) => text.slice(0, 8).includes(character))) return 'no text (weights, perhaps)';
  return undefined;
}
