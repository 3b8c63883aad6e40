/**
 * `npm run fuzz -- [--json] [--sample n] [--seed n] [--only text]`: configs of all families, published and small, each with one thing
 * wrong, through the whole planner. Each must become a plan or an error of the input that has a hint, in bounded time; no misspelt key
 * may change a model in silence; and of what is planned transformers must build a model of as many parameters, whose config, with its
 * defaults written out, plans the same.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { mulberry32 } from '../../src/address/layout.js';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import { FpdtError } from '../../src/spec/errors.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { parseOptions, runScript, wholeNumber } from '../options.js';
import { type Said, transformersSays } from '../transformersSays.js';
import { judge, modelOf, type Outcome } from './judge.js';
import { type Mutation, mutationsOf } from './mutations.js';

interface Named {
  readonly name: string;
  readonly config: JsonObject;
}

interface Defect {
  readonly name: string;
  readonly at: string;
  readonly what: string;
  readonly problem: string;
}

/** CPU of one plan, the compiler's included: a hang and not a busy machine. */
const MOST_SECONDS = 2;
const MOST_BYTES = 2 * 1024 ** 3;
/** One Python process builds so many models. */
const BATCH = 500;

function corpus(): readonly Named[] {
  const read = (path: string): unknown => JSON.parse(readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8'));
  const small = Object.entries(read('test/families.json') as Readonly<Record<string, JsonObject>>);
  const published = (read('scripts/compat/models.json') as readonly (Named & { readonly refused?: string })[]).filter(
    ({ refused }) => refused === undefined,
  );
  return [...small.map(([name, config]) => ({ name, config })), ...published];
}

class Fuzz {
  readonly outcomes: Record<Outcome, number> = { planned: 0, refused: 0, defect: 0 };
  readonly defects: Defect[] = [];
  readonly planned: (Mutation & Named)[] = [];
  slowestSeconds = 0;

  async run({ name, config }: Named, mutations: readonly Mutation[]): Promise<void> {
    const original = modelOf(config);
    for (const mutation of mutations) {
      const before = process.cpuUsage();
      const { outcome, message = '' } = await judge(mutation, original);
      const { user, system } = process.cpuUsage(before);
      const seconds = (user + system) / 1e6;
      this.slowestSeconds = Math.max(this.slowestSeconds, seconds);
      this.outcomes[outcome] += 1;
      if (outcome === 'planned') this.planned.push({ name, ...mutation });
      if (outcome === 'defect') this.add(name, mutation, message);
      if (seconds > MOST_SECONDS) this.add(name, mutation, `took ${seconds.toFixed(1)} s of CPU`);
    }
  }

  add(name: string, { at, what }: Mutation, problem: string): void {
    this.defects.push({ name, at, what, problem });
  }

  /** Against transformers, of every config that is planned. */
  async compare(): Promise<void> {
    for (let start = 0; start < this.planned.length; start += BATCH) {
      const batch = this.planned.slice(start, start + BATCH);
      const said = await transformersSays(batch.map(({ config }) => config));
      for (const [i, one] of batch.entries()) {
        const problem = disagreement(one.config, said[i] ?? {});
        if (problem !== undefined) this.add(one.name, one, problem);
      }
    }
  }
}

function disagreement(config: JsonObject, { numParameters, saved, error }: Said): string | undefined {
  if (numParameters === undefined || saved === undefined) return `is planned, but transformers says ${error}`;
  const { numModelParameters: planned } = parameterTable(parseModel(config));
  if (planned !== numParameters) return `${planned} parameters, transformers ${numParameters}`;
  return modelOf(saved) === modelOf(config) ? undefined : 'plans another model than the config does that transformers saves of it';
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      sample: { type: 'string' },
      seed: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
    },
  });
  const seed = wholeNumber('seed', values.seed);
  const random = mulberry32(seed);
  const configs = corpus().filter(({ name }) => name.includes(values.only));
  if (configs.length === 0)
    throw new FpdtError(`--only: no config has '${values.only}' in its name`, { code: 'usage', hint: "try 'llama'" });
  const all = configs.map((one) => ({ one, mutations: mutationsOf(one.config) }));
  const total = all.reduce((sum, { mutations }) => sum + mutations.length, 0);
  const share = values.sample === undefined ? 1 : wholeNumber('sample', values.sample) / total;
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  say(`seed ${seed}: ${total} changes of ${configs.length} configs, ${(100 * Math.min(1, share)).toFixed(0)}% of them`);
  const fuzz = new Fuzz();
  for (const { one, mutations } of all) await fuzz.run(one, share >= 1 ? mutations : mutations.filter(() => random() < share));
  await fuzz.compare();
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  const { outcomes, defects, slowestSeconds, planned } = fuzz;
  for (const { name, at, what, problem } of defects) say(`DEFECT ${name}: ${at} ${what}: ${problem}`);
  const ok = defects.length === 0 && peakBytes <= MOST_BYTES;
  const numChanges = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
  const report = {
    kind: 'fuzzReport',
    seed,
    numConfigs: configs.length,
    numChanges,
    outcomes,
    compared: planned.length,
    slowestSeconds,
    peakBytes,
    defects,
  };
  if (values.json) process.stdout.write(`${JSON.stringify(report, null, 1)}\n`);
  say(
    `fuzz ${ok ? 'ok' : 'failed'}: ${outcomes.planned} planned and compared with transformers, ${outcomes.refused} refused, ${defects.length} defects; ` +
      `slowest ${slowestSeconds.toFixed(2)} s of CPU, ${Math.round(peakBytes / 2 ** 20)} MiB at most`,
  );
  process.exitCode = ok ? 0 : 1;
}

await runScript(main);
