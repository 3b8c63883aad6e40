/**
 * `npm run test:tsan -- [--json] [--limit n] [--planted n] [--seed n]`: parity's plans on the native copy engine under ThreadSanitizer, in
 * C++ alone. Copies are real; every other op reads and writes all bytes of its views on a thread for its stream. Fails for a race, and
 * where a plan that lacks a wait has none: `--planted` waits are left out of the first plan, one at a time.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writePlanFile } from '../../src/index.js';
import { parseOptions, runScript, wholeNumber } from '../options.js';
import { caseName, coveringCases, FPDT_CASE, type ParityCase } from '../parity/cases.js';
import { planCase } from '../parity/setting.js';
import { buildReplay, type Replayed, replayText, runReplay } from './replay.js';

const NUM_CASES = 60;
const NUM_PLANTED = 40;
/** Of the waits left out, how many must show: others say what another wait says too. */
const LEAST_FOUND = 0.75;

interface Outcome {
  readonly name: string;
  readonly exact: Replayed;
  readonly threads: Replayed;
}

interface Planted {
  readonly wait: number;
  readonly numRaces: number;
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      limit: { type: 'string' },
      planted: { type: 'string' },
      seed: { type: 'string' },
    },
  });
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  const seed = values.seed === undefined ? 1 : wholeNumber('seed', values.seed);
  const limit = values.limit === undefined ? NUM_CASES : wholeNumber('limit', values.limit);
  const numPlanted = values.planted === undefined ? NUM_PLANTED : wholeNumber('planted', values.planted);
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-tsan-'));
  const outcomes: Outcome[] = [];
  let planted: readonly Planted[] = [];
  try {
    const program = await buildReplay(folder);
    const path = join(folder, 'plan.json');
    for (const one of [FPDT_CASE, ...coveringCases(NUM_CASES)].slice(0, limit)) {
      outcomes.push(await replay(program, path, one, seed));
      say(describe(outcomes.at(-1) as Outcome));
    }
    await writePlanFile(await planCase(FPDT_CASE), path);
    planted = await leaveOut(program, path, numPlanted, say);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const numRacing = outcomes.filter(({ exact, threads }) => exact.numRaces + threads.numRaces > 0).length;
  const numFound = planted.filter(({ numRaces }) => numRaces > 0).length;
  const ok = numRacing === 0 && numFound >= LEAST_FOUND * planted.length && planted.length > 0;
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'tsanReport', seed, plans: outcomes, planted }, null, 1)}\n`);
  say(
    `${ok ? 'tsan ok' : 'tsan FAILED'}: ${numRacing} of ${outcomes.length} plans race; ${numFound} of ${planted.length} waits left out show`,
  );
  process.exitCode = ok ? 0 : 1;
}

async function replay(program: string, path: string, one: ParityCase, seed: number): Promise<Outcome> {
  await writePlanFile(await planCase(one), path);
  const text = (await replayText(path)) ?? '';
  const [exact, threads] = [await runReplay(program, text, 'exact', seed), await runReplay(program, text, 'threads', seed)];
  return { name: caseName(one), exact, threads };
}

/** Waits spread over all that the plan's copies have. */
async function leaveOut(program: string, path: string, count: number, say: (text: string) => void): Promise<readonly Planted[]> {
  const found: Planted[] = [];
  for (let wait = 0; found.length < count; wait += STRIDE) {
    const text = await replayText(path, wait);
    if (text === undefined) break;
    const { numRaces } = await runReplay(program, text, 'exact', 1);
    found.push({ wait, numRaces });
    say(`${numRaces > 0 ? 'found  ' : 'silent '} without wait ${wait}`);
  }
  return found;
}

/** Prime, so that it meets waits of all kinds of a repeating pattern. */
const STRIDE = 7;

function describe({ name, exact, threads }: Outcome): string {
  const races = exact.numRaces + threads.numRaces;
  const line = `${races === 0 ? 'ok    ' : 'RACES '} ${name}: ${exact.copies} copies in ${exact.batches} batches, ${races} races`;
  return races === 0 ? line : `${line}\n${exact.firstRace ?? threads.firstRace ?? ''}`;
}

await runScript(main);
