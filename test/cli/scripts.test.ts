/** Wrong input of the scripts: what was expected and what to change, and no stack. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

function run(path: string, args: readonly string[], input = ''): string {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', path, ...args], { encoding: 'utf8', input });
  expect(status, stderr).toBe(1);
  expect(stderr).not.toMatch(/^ +at /m);
  return stderr;
}

describe('options', () => {
  it.each([
    ['scripts/parity/parity.ts', ['--onyl', 'x'], /Unknown option '--onyl'\nhint: did you mean --only\?/],
    ['scripts/parity/parity.ts', ['--limit', '-1'], /'--limit' argument is ambiguous/],
    ['scripts/parity/parity.ts', ['--only', 'nosuch'], /--only: no case has 'nosuch' in its name\nhint: give a part/],
    ['scripts/compat/compat.ts', ['--models=3'], /'--models' does not take an argument\nhint: options: --models, --only, --json/],
    ['scripts/mutate/mutate.ts', ['extra'], /Unexpected argument 'extra'/],
    ['scripts/demo.ts', ['--polcy', 'auto'], /did you mean --policy\?/],
    ['bench/planner.ts', ['--jsn'], /did you mean --json\?/],
  ])(
    '%s refuses %j',
    (path, args, message) => {
      expect(run(path, args)).toMatch(message);
    },
    60_000,
  );
});

describe('modelCode.ts', () => {
  it.each([
    ['', /stdin is not JSON: .*\nhint: give a JSON array of \{ config, dtype, rows \}/],
    ['{"config":{}}', /stdin: expected a list/],
    ['[{"config":{},"dtype":"int4","rows":1}]', /stdin\.0\.dtype: expected "float32" or "bfloat16" or "float16", found "int4"/],
    ['[{"config":{},"dtype":"float32","row":1}]', /stdin\.0\.rows: .*\nhint: 'row' was given; did you mean 'rows'\?/],
  ])(
    'refuses %j',
    (input, message) => {
      expect(run('scripts/modelCode.ts', [], input)).toMatch(message);
    },
    60_000,
  );
});
