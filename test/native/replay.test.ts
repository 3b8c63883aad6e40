/** Native replay against its twin, with whatever columns, on its thread, and under sanitizers. */
import { spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { layoutSchedule, mulberry32 } from '../../src/address/layout.js';
import { planRun } from '../../src/machine/planRun.js';
import { nativeReplays } from '../../src/machine/replays.js';
import { loadNativeAddon, type NativeAddon } from '../../src/native.js';
import type { CallFrame } from '../../src/verify/callFrame.js';
import { replayCall } from '../../src/verify/replay.js';
import { columnsOf, type ReplayColumns, type ReplayedColumns, replayedOf, type Replays } from '../../src/verify/replayColumns.js';
import { type VerifyInput, verifySchedule, verifyScheduleOn } from '../../src/verify/verify.js';
import { randomPlan } from '../verify/randomPlan.js';
import { smallPlan, tiedPlan } from '../verify/small.js';
import { compile } from './fakeMachine.js';
import { framesOf, realPlan } from './frames.js';

const SEED = Number(process.env['FPDT_SEED'] ?? randomInt(1_000_000_000));
const NUM_PLANS = 60;
const NATIVE = fileURLToPath(new URL('../../native/', import.meta.url));

const loaded = loadNativeAddon();
const addon = (): NativeAddon => {
  if ('addon' in loaded) return loaded.addon;
  throw new Error(loaded.reason);
};
const replay = (columns: object): ReplayedColumns => addon().replayCall(columns) as ReplayedColumns;

/** Half of them with something wrong. */
function randomPlans(): readonly VerifyInput[] {
  const random = mulberry32(SEED);
  const plan = smallPlan();
  const damaged = Array.from({ length: NUM_PLANS }, () => randomPlan(plan, random));
  const laidOut = Array.from({ length: 10 }, () => ({ ...plan, ...layoutSchedule(plan, { seed: Math.floor(random() * 2 ** 31) }) }));
  return [plan, tiedPlan(), ...laidOut, ...damaged];
}

const LONG = { gpus: 4, gpu: 'a100-80gb' };
const REAL: readonly (readonly [object, object])[] = [
  [LONG, { seqLen: '512K', policy: 'fpdt', numChunks: 16 }],
  [LONG, { seqLen: '512K', policy: 'fpdt', numChunks: 16, kvTileChunks: 4, segmentLayers: 2 }],
  [
    { ...LONG, diskBytes: '4T' },
    { seqLen: '512K', numChunks: 12, strategy: { layers: [{ layers: [0, 32], checkpoints: 'disk' }] } },
  ],
];

/** What native code finds of a call, and what its twin does; the op alone where something is wrong. */
function both(frame: CallFrame): readonly [unknown, unknown] {
  const found = replay(columnsOf(frame));
  const expected = replayCall(frame);
  const [first] = frame.context.violations.found;
  if (first !== undefined) return [found.problemOp, first.op];
  return [
    { problemOp: found.problemOp, ...replayedOf(found) },
    { problemOp: -1, ...expected },
  ];
}

describe(`native replay, seed ${SEED}`, () => {
  it('finds what its twin finds, in calls that are right and in others', () => {
    let numWrong = 0;
    for (const frame of randomPlans().flatMap(framesOf)) {
      const [found, expected] = both(frame);
      expect(found).toEqual(expected);
      if (typeof expected === 'number') numWrong += 1;
    }
    expect(numWrong).toBeGreaterThan(5);
  });

  it.each(REAL)('finds what its twin finds in plans on %j of %j', (cluster, run) => {
    for (const frame of framesOf(realPlan(cluster, run))) {
      const [found, expected] = both(frame);
      expect(found).toEqual(expected);
    }
  });

  it('leaves the verifier its words', async () => {
    const everything: Replays = { ...nativeReplays, leastOps: 0 };
    for (const plan of randomPlans()) expect(await verifyScheduleOn(everything, plan)).toEqual(verifySchedule(plan));
  });
});

describe('columns that are of no section', () => {
  const [frame] = framesOf(smallPlan());
  const columns = columnsOf(frame as CallFrame);
  const KEYS = Object.keys(columns) as readonly (keyof ReplayColumns)[];

  it.each(KEYS)('are refused where %s is something else', (key) => {
    for (const other of [undefined, null, 'x', -1, 1.5, [], new Float64Array(3)]) {
      expect(() => replay({ ...columns, [key]: other })).toThrow(TypeError);
      expect(() => addon().startReplay({ ...columns, [key]: other })).toThrow(TypeError);
    }
  });

  it.each(KEYS)('are refused where %s is too short or too long', (key) => {
    const column = columns[key];
    if (typeof column === 'number') return;
    for (const length of [0, column.length - 1, column.length + 1, 2 * column.length + 7]) {
      if (length < 0 || length === column.length) continue;
      const other = column instanceof Uint8Array ? new Uint8Array(length) : new Int32Array(length);
      other.set(column.subarray(0, length));
      const isHarmless = key === 'slotHasEntry' && length > column.length;
      if (isHarmless) expect(replay({ ...columns, [key]: other })).toEqual(replay(columns));
      else expect(() => replay({ ...columns, [key]: other })).toThrow(/^replay: /);
    }
  });

  it.each([
    ['streams', 0, 31],
    ['waitOffsets', 1, -1],
    ['waits', 0, 2 ** 30],
    ['waits', 0, -1],
    ['firstRead', 1, 2 ** 31 - 1],
    ['firstWrite', 0, -(2 ** 31)],
    ['firstAccumulate', 0, 2 ** 31 - 1],
    ['opViews', 0, -1],
    ['opViews', 0, 2 ** 31 - 1],
    ['viewSlot', 0, 2 ** 31 - 1],
    ['viewLow', 0, -1],
    ['viewHigh', 0, 2 ** 31 - 1],
  ] as const)('are refused where %s[%i] is %i', async (key, at, value) => {
    const frameWithWaits = framesOf(smallPlan()).find((one) => one.flat.waits.length > 0);
    const whole = columnsOf(frameWithWaits as CallFrame);
    const other = { ...whole, [key]: whole[key].with(at, value) };
    expect(() => replay(other)).toThrow(new RegExp(`^replay: (${key}|waits|opViews|first\\w+) (cannot be|has) `));
    await expect(addon().startReplay(other).result).rejects.toThrow(/^replay: /);
  });

  it.each([
    ['numStreams', 0],
    ['numStreams', 32],
    ['numCells', 2 ** 31 - 1],
  ] as const)('are refused where %s is %i', (key, value) => {
    expect(() => replay({ ...columns, [key]: value })).toThrow(RangeError);
  });

  it('throw or are replayed, whatever they hold', () => {
    const some = fc.tuple(fc.constantFrom(...KEYS), fc.nat(1000), fc.oneof(fc.integer({ min: -3, max: 40 }), fc.integer()));
    fc.assert(
      fc.property(fc.array(some, { minLength: 1, maxLength: 3 }), (changes) => {
        try {
          expect(replay(changed(columns, changes)).problemOp).toBeGreaterThanOrEqual(-1);
        } catch (error) {
          expect((error as Error).message).toMatch(/^replay: /);
        }
      }),
      { seed: SEED, numRuns: 500 },
    );
  });
});

type Change = readonly [key: keyof ReplayColumns, at: number, value: number];

function changed(columns: ReplayColumns, changes: readonly Change[]): ReplayColumns {
  const copy: ReplayColumns = structuredClone(columns);
  let counts = {};
  for (const [key, at, value] of changes) {
    const column = copy[key];
    if (typeof column === 'number') counts = { ...counts, [key]: Math.min(Math.abs(value), 1000) };
    else if (column.length > 0) column[at % column.length] = value;
  }
  return { ...copy, ...counts };
}

describe('on its thread', () => {
  let made: ReplayColumns;
  const long = (): ReplayColumns => structuredClone(made);
  beforeAll(() => {
    const [frame] = framesOf(realPlan({ gpus: 4, gpu: 'a100-80gb' }, { seqLen: '2M', policy: 'fpdt', numChunks: 64 })).toSorted(
      (a, b) => b.flat.numOps - a.flat.numOps,
    );
    made = columnsOf(frame as CallFrame);
  });

  it('gives the same, whatever becomes of the columns meanwhile', async () => {
    const columns = long();
    const expected = replay(columns);
    const { result } = addon().startReplay(columns);
    columns.opViews.fill(-1);
    expect(await result).toEqual(expected);
  });

  it('ends when it is cancelled, and rejects', async () => {
    const { result, cancel } = addon().startReplay(long());
    cancel();
    await expect(result).rejects.toThrow('replay: cancelled');
    cancel();
  });

  it('ends with the reason of a signal', async () => {
    const reason = new Error('no longer wanted');
    const early = AbortSignal.abort(reason);
    await expect(nativeReplays.start(long(), early)).rejects.toBe(reason);
    const controller = new AbortController();
    const late = nativeReplays.start(long(), controller.signal);
    controller.abort(reason);
    await expect(late).rejects.toBe(reason);
    const input = {
      model: 'examples/llama-3-8b.json',
      cluster: { gpus: 4, gpu: 'a100-80gb' },
      run: { seqLen: 4096, numChunks: 2 },
      deepspeed: {},
    };
    await expect(planRun(input, { signal: early })).rejects.toBe(reason);
  });
});

describe('with sanitizers', () => {
  it('the same results and refusals, and no error of memory or arithmetic', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fpdt-replay-'));
    const program = join(folder, 'replayMain');
    const sources = [join(NATIVE, 'replay.cc'), join(NATIVE, 'replay_check.cc'), fileURLToPath(new URL('replayMain.cc', import.meta.url))];
    compile(['-g1', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', `-I${NATIVE}`, ...sources, '-o', program]);
    const random = mulberry32(SEED);
    const all = [...randomPlans().slice(0, 30).flatMap(framesOf), ...framesOf(realPlan(...(REAL[2] as (typeof REAL)[number])))].map(
      columnsOf,
    );
    const wild = all.flatMap((columns) => Array.from({ length: 3 }, () => changed(columns, [wildChange(random), wildChange(random)])));
    const inputs = [...all, ...wild];
    const { status, stdout, stderr } = spawnSync(program, { input: inputs.map(toText).join('\n'), encoding: 'utf8', maxBuffer: 1 << 28 });
    rmSync(folder, { recursive: true });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const found = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(found).toEqual(inputs.map(expectedOf));
  });
});

function wildChange(random: () => number): Change {
  const keys = [
    'numStreams',
    'numCells',
    'streams',
    'waitOffsets',
    'waits',
    'firstRead',
    'firstWrite',
    'firstAccumulate',
    'opViews',
    'viewSlot',
    'viewLow',
    'viewHigh',
  ] as const;
  const value = random() < 0.5 ? Math.floor(random() * 40) - 3 : Math.floor((random() - 0.5) * 2 ** 32);
  return [keys[Math.floor(random() * keys.length)] ?? 'waits', Math.floor(random() * 1000), value];
}

/** In the order of ReplayColumns. */
function toText({ numStreams, numCells, ...columns }: ReplayColumns): string {
  const { streams, waitOffsets, waits, firstRead, firstWrite, firstAccumulate, opViews, viewSlot, viewLow, viewHigh, slotHasEntry } =
    columns;
  const all = [streams, waitOffsets, waits, firstRead, firstWrite, firstAccumulate, opViews, viewSlot, viewLow, viewHigh, slotHasEntry];
  return [numStreams, numCells, ...all.map((column) => [column.length, ...column].join(' '))].join('\n');
}

function expectedOf(columns: ReplayColumns): object {
  try {
    return Object.fromEntries(
      Object.entries(replay(columns)).map(([key, value]) => [key, typeof value === 'number' ? value : Array.from(value as Int32Array)]),
    );
  } catch (error) {
    return { refused: (error as Error).message };
  }
}
