/** Hjson as DeepSpeed reads it, against hjson-py itself. */
import { execa } from 'execa';
import { expect, test } from 'vitest';
import { resolvePython } from '../../src/bridge/python.js';
import { parseHjson } from '../../src/spec/hjsonText.js';
import { errorOf } from './inputs.js';

const TEXTS = [
  '\uFEFF{"a": 1}',
  '{a: true, b: null, c: yes, // x\n d: hello world # no\n e: 5 # n\n}',
  'a: 1\nb: {c:2}\n',
  '# only\n{"a": [1\n2\n3,], // x\n "b": {"c": {},},}',
  '[1, 2]',
  '{"a":1}}',
  '{"a":1} trailing',
  '{"a" "b"}',
  '{a: 1,, b:2}',
  '{,}',
  '{"a": 1 "b": 2}',
  '{"a": True,\n "b": off\n}',
  '{"a": True, "b": False}',
  '{"a": 012\n}',
  '{"a": -0, "b": 1.50, "c": 1e-5, "d": 5e8, "e": .5\n}',
  '{\'a\': \'b"c\', "d": "e\'f\\u00e9\\n\\/"}',
  "{\n  a:\n    '''\n    first\n      second\n    '''\n  b: '''x'''\n}",
  '{"a": /* c */ 3, /* d\n */ "b": 1}',
  '{"a": /* c }',
  '{"a": 1',
  '{"a": "xy',
  '{"a": "x\ty"}',
  '{"a": "\\x"}',
  '{"a": abc\n}',
  '{"a": abc}',
  '{"a": /path/to\n "b": a//b\n "c": 1/2\n}',
  '{"a":1, "a":2}',
  '{"a": {"b": 1, "c": {"b": 1, "b": 2}}}',
  '{"a": 1e999}',
  '{"a": , "b": 1}',
  '{a b: 1}',
  '{"a": truely\n, "b": nullable\n}',
  '{"": 1}',
  '{: 1}',
  '[1, [2, {a: [}]]',
];

const ASK = `
import hjson, json, sys
from collections import Counter
def pairs(found):
    if any(count > 1 for count in Counter(key for key, _ in found).values()):
        raise ValueError("twice")
    return dict(found)
def read(text):
    try:
        return {"value": hjson.loads(text, object_pairs_hook=pairs)}
    except Exception:
        return None
print(json.dumps([read(text) for text in json.load(sys.stdin)]))
`;

test('texts are read, or refused, as hjson-py does', async () => {
  const { stdout } = await execa(resolvePython(), ['-c', ASK], { input: JSON.stringify(TEXTS) });
  const theirs = JSON.parse(stdout) as unknown;
  expect(TEXTS.map(read)).toEqual(theirs);
  expect(theirs).toContain(null);
});

function read(text: string): unknown {
  try {
    return { value: parseHjson(text, 'it').value };
  } catch {
    return null;
  }
}

test('keys know their lines', () => {
  const { lines } = parseHjson('{\n "a": 1,\n\n "b": {"c": [\n  {"d": 2}]}}', 'it');
  expect([...lines]).toEqual([
    ['a', 2],
    ['b', 4],
    ['b.c', 4],
    ['b.c.0.d', 5],
  ]);
});

test.each<[string, number, string, RegExp]>([
  ['{\n "a": 1,\n "a": 2}', 3, 'a', /given twice; it stands on line 2 too/],
  ['{"b": {"a": 1,\n "c" 2}}', 2, 'b.c', /expected ':' after the key, found "2}}"/],
  ['{"a": [1,\n', 2, 'a', /expected ']', found the end: the file is cut short/],
  ['{"a": 1} /* b', 1, '', /a comment is not closed/],
  ['{"a": "x\n"}', 1, 'a', /a text is not closed/],
  ['{"a": 1e999}', 1, 'a', /past the largest/],
  [' \n', 2, '', /the file is empty/],
])('%j is refused with line %i and key', (text, line, key, message) => {
  const error = errorOf(() => parseHjson(text, 'it'));
  expect(error.details).toMatchObject({ line, key });
  expect(`${error.message}; ${error.hint}`).toMatch(message);
});
