/**
 * `npm run parity:resume -- [--json] [--limit n]`: a run of ten steps more from a checkpoint of another number of ranks, ZeRO stage and placement, against
 * a run that was never stopped. Every value of each goes on from every other of its kind. The first loss must agree to 1e-6, all to 1e-5; where nothing but
 * the process is another, to the bit.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FpdtError, writePlanFile } from '../../src/index.js';
import { parseOptions, runScript, wholeNumber } from '../options.js';
import { FPDT_CASE, type ParityCase } from './cases.js';
import { Harness, type JobResult } from './harness.js';
import { planCase, writeTokens } from './setting.js';

const SAVED_STEPS = 3;
const STEPS = SAVED_STEPS + 10;
const FIRST_TOLERANCE = 1e-6;
const TOLERANCE = 1e-5;

const RANKS = [1, 2, 4] as const;
const STAGES = [0, 1, 2, 3] as const;
/** Everything on the device in one chunk, as much as can be on the host, and what the paper does. */
const PLACES: Readonly<Record<string, Partial<ParityCase>>> = {
  device: { keyValues: 'hbm', checkpoints: 'hbm', attentionOutput: 'hbm', numChunks: 1 },
  host: {
    keyValueGradients: 'host',
    attentionOutput: 'host',
    hiddenGradients: 'host',
    backwardOrder: 'queryOuterDescending',
    numChunks: 2,
  },
  fpdt: {},
};

interface Setting {
  readonly name: string;
  readonly case: ParityCase;
}

interface Resumed {
  readonly from: string;
  readonly to: string;
  readonly firstError: number;
  readonly error: number;
  readonly ok: boolean;
}

async function main(): Promise<void> {
  const { values } = parseOptions({ options: { json: { type: 'boolean', default: false }, limit: { type: 'string' } } });
  const chosen = settings();
  const limit = values.limit === undefined ? chosen.length : wholeNumber('limit', values.limit, { most: chosen.length });
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-resume-'));
  const harness = Harness.start();
  try {
    const grid = new Grid(harness, folder, await writeTokens(folder));
    const rows: Resumed[] = [];
    for (const setting of chosen.slice(0, limit)) {
      const next = chosen[(chosen.indexOf(setting) + 1) % chosen.length] ?? setting;
      for (const to of [setting, next]) {
        const row = await grid.resume(setting, to);
        rows.push(row);
        if (!values.json)
          process.stdout.write(`${row.ok ? 'ok  ' : 'FAIL'} ${row.from} -> ${row.to}  first ${row.firstError}  worst ${row.error}\n`);
      }
    }
    const numFailed = rows.filter(({ ok }) => !ok).length;
    if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'resume', numFailed, rows }, null, 2)}\n`);
    if (numFailed > 0) throw new FpdtError(`${numFailed} of ${rows.length} resumed runs have other losses`, { code: 'resume-failed' });
  } finally {
    await harness.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * A ring: each setting's checkpoint is gone on from by itself and by the next. Over twelve settings every number of ranks meets every stage,
 * every place meets every number of ranks and every stage, and neighbours differ in all three.
 */
function settings(): readonly Setting[] {
  const places = Object.keys(PLACES);
  return Array.from({ length: RANKS.length * STAGES.length }, (_, at) => {
    const ranks = RANKS[at % RANKS.length] ?? 1;
    const stage = STAGES[at % STAGES.length] ?? 0;
    const place = places[(at + Math.floor(at / STAGES.length)) % places.length] ?? '';
    const name = `P${ranks} ZeRO-${stage} ${place}`;
    return { name, case: { ...FPDT_CASE, ...PLACES[place], sequenceParallelSize: ranks, zeroStage: stage } };
  });
}

class Grid {
  readonly #harness: Harness;
  readonly #folder: string;
  readonly #data: string;
  readonly #whole = new Map<string, readonly number[]>();
  #numSaved = 0;

  constructor(harness: Harness, folder: string, data: string) {
    this.#harness = harness;
    this.#folder = folder;
    this.#data = data;
  }

  async resume(from: Setting, to: Setting): Promise<Resumed> {
    const saved = join(this.#folder, `saved-${this.#numSaved++}`);
    await this.#run(from, SAVED_STEPS, saved);
    const rest = await this.#run(to, STEPS, saved);
    const whole = await this.#uninterrupted(from);
    const expected = whole.slice(SAVED_STEPS);
    const errors = expected.map((loss, at) => Math.abs((rest[at] ?? Number.NaN) - loss) / loss);
    const [firstError = Number.NaN] = errors;
    const error = Math.max(...errors);
    const isSame = from === to;
    const ok = isSame ? error === 0 : firstError <= FIRST_TOLERANCE && error <= TOLERANCE;
    await rm(saved, { recursive: true, force: true });
    return { from: from.name, to: to.name, firstError, error, ok };
  }

  async #uninterrupted(setting: Setting): Promise<readonly number[]> {
    const known = this.#whole.get(setting.name) ?? (await this.#run(setting, STEPS, null));
    this.#whole.set(setting.name, known);
    return known;
  }

  async #run(setting: Setting, steps: number, saved: string | null): Promise<readonly number[]> {
    const plan = await planCase(setting.case, { numSteps: STEPS });
    const path = join(this.#folder, 'plan.json');
    await writePlanFile(plan, path);
    const checkpoint = saved === null ? null : { folder: saved, every: null, keep: 1, on_save_failure: 'stop' };
    const options = { poison: false, checkpoint, resume: saved === null ? null : { newest: true, path: null } };
    const worldSize = plan.cluster.numRanks;
    const job = { kind: 'worker', plan: path, data: this.#data, steps, worldSize, options, idleSeconds: 120 } as const;
    const { losses = [] }: JobResult = await this.#harness.mustRun(job);
    return losses;
  }
}

await runScript(main);
