/** Files that are no JSON, not quite, or not what was meant: what is said of them. */
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { parseCluster, parseModel, parseSpecs } from '../../src/catalog/index.js';
import { parseJsonText } from '../../src/spec/jsonText.js';
import { MAX_DEPTH } from '../../src/spec/textReader.js';
import { readJsonObject } from '../../src/spec/parseJson.js';
import { errorOf, LLAMA, specs } from './inputs.js';

const folder = mkdtempSync(join(tmpdir(), 'fpdt-json-'));
const path = join(folder, 'config.json');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(text: string | Buffer): string {
  writeFileSync(path, text);
  return path;
}

describe('a JSON text', () => {
  test('is read as JSON.parse reads it', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.constantFrom(undefined, 2, '\t'), (value, space) => {
        const text = JSON.stringify(value, null, space);
        const parsed = JSON.parse(text) as unknown;
        expect(parseJsonText(text, 'it')).toEqual(parsed);
        expect(JSON.stringify(parseJsonText(text, 'it'))).toBe(JSON.stringify(parsed));
      }),
    );
    const escapes = String.raw`{"a\u00e9\n\"\\\/": ["\ud83d\ude00", 1.5e-3, -0, 12E+2]}`;
    expect(parseJsonText(escapes, 'it')).toEqual(JSON.parse(escapes));
    expect(parseJsonText(`\uFEFF{"a": 1}`, 'it')).toEqual({ a: 1 });
    expect(Object.keys(parseJsonText('{"__proto__": 1}', 'it') as object)).toEqual(['__proto__']);
  });

  test('is refused where JSON.parse refuses it', () => {
    const pieces = fc.array(
      fc.constantFrom('{', '}', '[', ']', ',', ':', '"a"', '"', '1', '-', '.5', 'e9', 'true', 'nul', ' ', '\n', '\\', 'NaN'),
    );
    fc.assert(
      fc.property(pieces, (parts) => {
        const text = parts.join('');
        expect(accepts(() => parseJsonText(text, 'it'))).toBe(accepts(() => withoutDoubles(text)));
      }),
      { numRuns: 2000 },
    );
  });

  test('may hold a long text and a long list', () => {
    expect(parseJsonText(JSON.stringify({ a: 'x\\'.repeat(1_000_000) }), 'it')).toEqual({ a: 'x\\'.repeat(1_000_000) });
    expect(parseJsonText(JSON.stringify(Array.from({ length: 500_000 }, () => 1)), 'it')).toHaveLength(500_000);
  });
});

function accepts(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch {
    return false;
  }
}

/** JSON.parse, but for keys that are given twice. */
function withoutDoubles(text: string): unknown {
  const value = JSON.parse(text) as unknown;
  const written = text.replaceAll(/\s/g, '').split('"a":').length - 1;
  const kept = JSON.stringify(value).split('"a":').length - 1;
  if (written !== kept) throw new Error('twice');
  return value;
}

describe('of a file the line and the key are named', () => {
  test.each<[string, string, number, string, RegExp]>([
    ['a key given twice', '{\n "a": 1,\n "b": {"c": 1,\n "c": 2}}', 4, 'b.c', /given twice; it stands on line 3 too/],
    ['NaN', '{"a": 1,\n "eps": NaN}', 2, 'eps', /NaN is no JSON, though Python writes it/],
    ['Infinity', '{"a": {"b":\n -Infinity}}', 2, 'a.b', /-Infinity is no JSON/],
    ['a number past all', '{"a":\n\n 1e999}', 3, 'a', /past the largest number/],
    ['a comma too many', '{"a": [1,\n 2,\n]}', 3, 'a', /comma before ']'; delete the comma/],
    ['a comma too few', '{"a": 1\n "b": 2}', 2, '', /expected ',' or '}', found "\\"b\\": 2}"/],
    ['a comment', '{\n // sizes\n "a": 1}', 2, '', /expected a key in double quotes, found/],
    ['single quotes', "{'a': 1}", 1, '', /expected a key in double quotes/],
    ['a cut file', '{"a": [1, {"b"', 1, 'a.1.b', /found the end: the file is cut short/],
    ['a cut text', '{"a": "xy', 1, 'a', /text is not closed/],
    ['something after it', '{"a": 1}\n{"a": 2}', 2, '', /after the end of the JSON value/],
    ['Python', '{"a": True}', 1, 'a', /expected a value, found "True}"/],
    ['a number with zeros before', '{"a": 012}', 1, 'a', /expected a value/],
    ['nothing', ' \n', 2, '', /the file is empty/],
  ])('%s', (_name, text, line, key, message) => {
    const error = errorOf(() => readJsonObject(file(text), 'model config'));
    expect(error.details).toMatchObject({ line, key });
    expect(error.message).toContain(`model config '${path}', line ${line}, column `);
    expect(`${error.message}; ${error.hint ?? ''}`).toMatch(message);
  });

  test('nesting past all reason', () => {
    const error = errorOf(() => parseJsonText('{"a":'.repeat(200_000), 'it'));
    expect(error.message).toContain(`nested more than ${MAX_DEPTH} deep`);
    expect(errorOf(() => parseJsonText('['.repeat(200_000), 'it')).message).toContain('nested');
    expect(parseJsonText('['.repeat(MAX_DEPTH) + ']'.repeat(MAX_DEPTH), 'it')).toHaveLength(1);
  });
});

describe('what people give in the place of a config', () => {
  test.each<[string, string | Buffer, RegExp]>([
    ['a page', '<!DOCTYPE html>\n<html><body>404</body></html>', /found a web page/],
    ['safetensors', Buffer.from([88, 1, 0, 0, 0, 0, 0, 0, ...Buffer.from('{"__metadata__":{}}')]), /found no text \(weights, perhaps\)/],
    ['a pointer', 'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', /git-lfs: the file itself was not fetched/],
    ['a list', '[1]', /expected a JSON object, found \[1\]/],
    ['a text', '"llama"', /expected a JSON object, found "llama"/],
  ])('%s', (_name, content, message) => {
    const error = errorOf(() => readJsonObject(file(content), 'model config'));
    expect(error.message).toMatch(message);
    expect(error.hint).toMatch(/path of (a|the) JSON file/);
  });

  test('a folder, and files without end', () => {
    mkdirSync(join(folder, 'model'), { recursive: true });
    expect(errorOf(() => parseCluster(join(folder, 'model'))).message).toMatch(/it is a folder$/);
    expect(messageOf(join(folder, 'model'))).toMatch(/^file-not-readable: .*model\/config\.json': ENOENT/);
    file('');
    truncateSync(path, 2 ** 30);
    for (const large of [path, '/dev/zero']) expect(messageOf(large)).toMatch(/^file-not-readable: .* bytes or more, of 4194304 that/);
  });
});

function messageOf(config: string): string {
  const { code, message } = errorOf(() => parseModel(config));
  return `${code}: ${message}`;
}

test('files of all inputs are read alike', () => {
  const twice = file('{"a": 1, "a": 2}');
  const reads = [
    () => parseModel(twice),
    () => parseCluster(twice),
    () => specs({ run: { strategy: twice } }),
    () => parseSpecs({ model: LLAMA, cluster: { gpus: 1, gpu: 'cpu' }, run: { seqLen: 64 }, deepspeed: twice }),
  ];
  for (const read of reads) expect(errorOf(read).code).toBe('duplicate-key');
});

describe('objects that a program gives', () => {
  const circle: Record<string, unknown> = { ...LLAMA };
  circle.self = circle;
  test.each<[string, object, RegExp]>([
    ['NaN', { ...LLAMA, rms_norm_eps: Number.NaN }, /model config.rms_norm_eps: expected a value that JSON has, found NaN/],
    ['a big integer', { ...LLAMA, hidden_size: 64n }, /found bigint/],
    ['a function', { ...LLAMA, note: () => 1 }, /found function/],
    ['a date', { ...LLAMA, note: new Date(0) }, /an object of a class/],
    ['a circle', circle, /nested more than/],
    [
      'a long list of lists',
      { ...LLAMA, note: Array.from({ length: 2000 }, () => Array.from({ length: 1000 }, () => 1)) },
      /more than 1000000 values/,
    ],
  ])('%s', (_name, config, message) => {
    const error = errorOf(() => parseModel(config as Record<string, unknown>));
    expect(error.message).toMatch(message);
    expect(error.hint).toMatch(/finite/);
  });

  test('may leave keys undefined', () => {
    expect(parseModel({ ...LLAMA, head_dim: undefined, num_kv_heads: undefined }).headDim).toBe(8);
  });
});
