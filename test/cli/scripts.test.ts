/** Wrong input of the scripts: what was expected and what to change, and no stack. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

function run(path: string, args: readonly string[], input = ''): string {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', path, ...args], { encoding: 'utf8', input });
  expect(status, stderr).toBe(1);
  expect(stderr).not.toMatch(/^ +at /m);
  return stderr;
}

/** One of each script; of others' options in full rounds. */
const OPTIONS: readonly (readonly [string, readonly string[], RegExp])[] = [
  ['scripts/mutate/mutate.ts', ['extra'], /Unexpected argument 'extra'/],
  ['scripts/demo.ts', ['--polcy', 'auto'], /did you mean --policy\?/],
  ['bench/planner.ts', ['--jsn'], /did you mean --json\?/],
  ['bench/record.ts', ['toString'], /expected the name of a check, found 'toString'\nhint: give one of parity, /],
];
const MORE_OPTIONS: typeof OPTIONS = [
  ['scripts/parity/parity.ts', ['--onyl', 'x'], /Unknown option '--onyl'\nhint: did you mean --only\?/],
  ['scripts/compat/compat.ts', ['--models=3'], /'--models' does not take an argument\nhint: options: --models, --only, --json/],
  ['bench/published.ts', ['--jsn'], /did you mean --json\?/],
  ['bench/accuracy.ts', ['--only', '9'], /--only: expected a whole number from 1 to 6, found '9'\nhint: give --only 6/],
  ['bench/accuracy/docs.ts', ['--chek'], /did you mean --check\?/],
  ['bench/grid.ts', ['--draws', '0'], /--draws: expected a whole number of at least 1, found '0'\nhint: give --draws 1/],
  ['bench/headGroups.ts', ['--only', '9B'], /no case has the model '9B'\nhint: give one of 1B, 3B, 8B, 7B, 13B/],
  ['bench/demoStep.ts', ['no-such-folder'], /expected the folder of an older checkout, found no-such-folder\nhint: /],
  ['scripts/pack/pack.ts', ['--cor'], /did you mean --core\?/],
  ['scripts/fuzz/fuzz.ts', ['--help'], /Unknown option '--help'\nhint: options: --json, --sample, --seed, --only/],
  ['scripts/chaos/chaos.ts', ['--rounds', '0'], /--rounds: expected a whole number of at least 1, found '0'/],
  ['scripts/parity/resume.ts', ['--limit', '13'], /--limit: expected a whole number from 1 to 12, found '13'/],
  ['scripts/generate-schemas.ts', ['--chek'], /did you mean --check\?/],
  ['scripts/mutate/mutate.ts', ['--only', 'nosuch'], /--only: no plan has 'nosuch' in its name\nhint: give a part of/],
  ['scripts/mutate/mutate.ts', ['--only', 'packed', '--device'], /--only is of mutate's own plans\nhint: leave --only out/],
  ['scripts/parity/parity.ts', ['--limit', '-1'], /'--limit' argument is ambiguous/],
  ['scripts/parity/parity.ts', ['--only', 'nosuch'], /--only: no case has 'nosuch' in its name\nhint: give a part/],
  ['bench/accuracy.ts', ['--steps', '1'], /--steps: expected a whole number of at least 2, found '1'\nhint: give --steps 2/],
  ['bench/accuracy.ts', ['--seconds', 'NaN'], /--seconds: expected a whole number of at least 1, found 'NaN'/],
  ['bench/grid.ts', ['--cases=-1'], /--cases: expected a whole number from 1 to 55, found '-1'\nhint: give --cases 1/],
  ['bench/grid.ts', ['--cases', '56'], /--cases: expected a whole number from 1 to 55, found '56'\nhint: give --cases 55/],
  ['bench/grid.ts', ['--seed', '1e3'], /--seed: expected a whole number of at least 1, found '1e3'/],
  ['scripts/fuzz/fuzz.ts', ['--sample', '0'], /--sample: expected a whole number of at least 1, found '0'/],
];

describe('options', () => {
  const refuses = (path: string, args: readonly string[], message: RegExp): void => expect(run(path, args)).toMatch(message);

  it.each(OPTIONS)('%s refuses %j', refuses);
  it.each(MORE_OPTIONS)('%s refuses %j', { tags: ['full'] }, refuses);
});

describe('modelCode.ts', () => {
  it.each([
    ['[', /stdin is not JSON: .*\nhint: give a JSON array of \{ config, dtype, rows \} on each line/],
    ['{"config":{}}', /stdin: expected a list/],
    ['[{"config":{},"dtype":"int4","rows":1}]', /stdin\.0\.dtype: expected "float32" or "bfloat16" or "float16", found "int4"/],
    ['[{"config":{},"dtype":"float32","row":1}]', /stdin\.0\.rows: .*\nhint: 'row' was given; did you mean 'rows'\?/],
  ])('refuses %j', { tags: ['full'] }, (input, message) => {
    expect(run('scripts/modelCode.ts', [], input)).toMatch(message);
  });
});
