import { describe, expect, it } from 'vitest';
import { compareRun, comparisonToText, median } from '../../src/report/compare.js';
import { progressLine } from '../../src/report/progress.js';
import { judge, verdictLine } from '../../src/report/verdict.js';
import { PLAN, result, step } from './sample.js';

const MIB = 2 ** 20;
const STEPS = [step(0, { seconds: 30 }), step(1), step(2, { seconds: 2.3 })];
const COMPARISON = compareRun(PLAN, result(STEPS));

describe('planned against measured', () => {
  it('takes times from all steps but the first, losses from the ends', () => {
    expect(COMPARISON).toMatchObject({ numTimedSteps: 2, firstLoss: 5, lastLoss: 4.8, stepSeconds: { planned: 2 } });
    expect(COMPARISON.stepSeconds.measured).toBeCloseTo(2.2, 9);
    expect(compareRun(PLAN, result([step(0, { seconds: 7 })])).stepSeconds.measured).toBe(7);
  });

  it('lists kinds that only the plan or only the run has, longest first', () => {
    expect(COMPARISON.kinds.map(({ kind }) => kind)).toEqual(['attn', 'pre', 'gather', 'copy']);
    expect(COMPARISON.kinds[2]).toEqual({ kind: 'gather', plannedCount: 0, measuredCount: 1, plannedSeconds: 0, measuredSeconds: 0.1 });
    expect(COMPARISON.kinds[3]).toMatchObject({ plannedCount: 3, measuredCount: 0 });
  });

  it('compares pools and streams by name, also those that only one side has', () => {
    expect(COMPARISON.pools).toEqual([
      { pool: 'hbm', planned: 100 * MIB, measured: 99 * MIB },
      { pool: 'host', planned: 10 * MIB, measured: 10 * MIB },
      { pool: 'disk', planned: 0, measured: 0 },
    ]);
    expect(COMPARISON.copies).toEqual([
      { stream: 'h2d', planned: 4096, measured: 4096 },
      { stream: 'd2h', planned: 2048, measured: 2048 },
      { stream: 'read', planned: 0, measured: 0 },
    ]);
    const other = compareRun(PLAN, result([step(0), step(1, { copiedBytes: { write: 7 } })], { poolBytes: { shelf: 8 } }));
    expect(other.pools.at(-1)).toEqual({ pool: 'shelf', planned: 0, measured: 8 });
    expect(other.copies.at(-1)).toEqual({ stream: 'write', planned: 0, measured: 7 });
  });

  it('prints one row per kind, idle, the step, and the pools and streams in use', () => {
    const lines = comparisonToText(COMPARISON).split('\n');
    expect(lines.find((line) => line.startsWith('attn'))).toMatch(/attn\s+4\s+4\s+1\.50 s\s+1\.60 s\s+1\.07x/);
    expect(lines.find((line) => line.startsWith('gather'))).toMatch(/-$/);
    expect(lines.find((line) => line.startsWith('idle'))).toContain('100 ms');
    expect(lines.find((line) => line.startsWith('hbm, peak'))).toMatch(/100 MiB\s+99 MiB\s+0\.99x/);
    expect(lines.find((line) => line.startsWith('hbm, load'))).toMatch(/40 MiB\s+39 MiB\s+0\.97x/);
    expect(lines.find((line) => line.startsWith('copied d2h'))).toMatch(/2 KiB\s+2 KiB\s+1\.00x/);
    expect(lines.filter((line) => /^(disk|copied read)/.test(line))).toEqual([]);
  });

  it('says in which steps memory was measured, counted from 1 as progress counts them', () => {
    expect(COMPARISON.memorySteps).toEqual([1, 2]);
    expect(comparisonToText(COMPARISON)).toMatch(/\nmemory measured in steps 2, 3$/);
    const once = compareRun(PLAN, result([step(0), step(1, { memoryMeasured: false }), step(2)]));
    expect(comparisonToText(once)).toMatch(/\nmemory measured in step 3$/);
    const long = compareRun(PLAN, result(Array.from({ length: 20 }, (_, i) => step(i))));
    expect(comparisonToText(long)).toMatch(/\nmemory measured in 19 steps, from step 2 to step 20$/);
    const never = compareRun(PLAN, result([step(0)]));
    expect(never.pools.map(({ measured }) => measured)).toEqual([null, null, null]);
    expect(comparisonToText(never)).toMatch(/hbm, peak\s+100 MiB\s+not measured\s+-\n[\s\S]*\nmemory was measured in no step$/);
  });

  it('takes times of ops from the steps that have them', () => {
    const untimed = (index: number) => step(index, { opsTimed: false, byKind: {}, idleSeconds: 0, seconds: 1.9 });
    const some = compareRun(PLAN, result([step(0), step(1), untimed(2), untimed(3)]));
    expect(some).toMatchObject({ numTimedSteps: 3, numOpSteps: 1, idleSeconds: 0.1, meanStepSeconds: 2.1, stepSeconds: { measured: 1.9 } });
    expect(some.kinds).toEqual(COMPARISON.kinds);
    expect(comparisonToText(some)).toMatch(/^per step and rank, median of 3 steps, of ops over 1:\n/);
    const first = compareRun(PLAN, result([step(0), untimed(1)]));
    expect(first).toMatchObject({ numTimedSteps: 1, numOpSteps: 1, stepSeconds: { measured: 1.9 }, meanStepSeconds: 2.1 });
    expect(comparisonToText(COMPARISON)).toMatch(/^per step and rank, median of 2 steps:\n/);
  });

  it('has the load of pools that start-up fills, measured or not', () => {
    expect(COMPARISON.load).toEqual([{ pool: 'hbm', planned: 40 * MIB, measured: 39 * MIB }]);
    const other = compareRun(PLAN, result(STEPS, { loadPoolBytes: { host: 2 * MIB } }));
    expect(other.load).toEqual([
      { pool: 'hbm', planned: 40 * MIB, measured: null },
      { pool: 'host', planned: 0, measured: 2 * MIB },
    ]);
    expect(comparisonToText(other)).toMatch(/hbm, load\s+40 MiB\s+not measured\s+-/);
  });

  it('has what communicators took beside what the ledger has for them, where a rank could tell', () => {
    expect(COMPARISON.communicators).toBeNull();
    const [device, ...others] = PLAN.memory.pools;
    if (device === undefined) throw new Error('no device');
    const items = ['NCCL communicator', 'more NCCL communicators', 'NCCL all-to-all buffers', 'arena'];
    const persistent = items.map((name) => ({ name, bytes: MIB, provenance: 'assumed', note: '' }) as const);
    const plan = { ...PLAN, memory: { ...PLAN.memory, pools: [{ ...device, persistent }, ...others] } };
    const comparison = compareRun(plan, result(STEPS, { communicatorBytes: 4 * MIB }));
    expect(comparison.communicators).toEqual({ planned: 3 * MIB, measured: 4 * MIB });
    expect(comparisonToText(comparison)).toMatch(/\ncommunicators\s+3 MiB\s+4 MiB\s+1\.33/);
  });

  it('names the kernels that the run had', () => {
    const comparison = compareRun(PLAN, result(STEPS, { kernels: { attn: 'cudnn', copies: 'events, native' } }));
    expect(comparison.kernels).toEqual({ attn: 'cudnn', copies: 'events, native' });
    expect(comparisonToText(comparison)).toContain('\nran with the kernels attn cudnn, copies events, native');
    expect(comparisonToText(COMPARISON)).not.toContain('kernels');
  });

  it('has a median of none, odd and even many', () => {
    expect([median([]), median([3, 1, 2]), median([4, 1, 3, 2])]).toEqual([0, 2, 2.5]);
  });
});

describe('verdict', () => {
  it('keeps a run that kept to its plan', () => {
    expect(judge(COMPARISON)).toMatchObject({ ok: true, failures: [] });
    expect(judge(COMPARISON).kept).toHaveLength(1 + 3 + 3 + 1 + 1);
    expect(verdictLine(COMPARISON)).toBe('loss 5.0000 -> 4.8000, hbm planned 100 MiB measured 99 MiB, step planned 2.00 s measured 2.20 s');
    expect(verdictLine(compareRun(PLAN, result([step(0)])))).toContain('hbm planned 100 MiB measured in no step');
  });

  const broken: readonly (readonly [string, Parameters<typeof result>[0], Parameters<typeof result>[1], RegExp])[] = [
    ['a loss that rises', [step(0), step(1, { loss: 6 })], {}, /loss did not fall: 5\.0000 -> 6\.0000/],
    ['a loss that is not finite', [step(0), step(1, { loss: null })], {}, /not finite/],
    ['too much memory', STEPS, { poolBytes: { hbm: 106 * MIB, host: 10 * MIB } }, /hbm memory within 5%.*\+6\.0%/],
    ['too little memory', STEPS, { poolBytes: { hbm: 100 * MIB, host: 9 * MIB } }, /host memory within 5%.*-10\.0%/],
    [
      'memory where none was planned',
      STEPS,
      { poolBytes: { ...STEPS[0]?.poolBytes, disk: 4096 } },
      /disk memory within 5%: planned 0 B, measured 4 KiB/,
    ],
    ['bytes copied too often', [step(0), step(1, { copiedBytes: { h2d: 4097, d2h: 2048 } })], {}, /on h2d.*planned 4096, measured 4097/],
    ['a slow step', [step(0), step(1, { seconds: 3.1, idleSeconds: 1.1 })], {}, /step time within 1\.5x.*\(1\.55x\)/],
    ['a fast step', [step(0), step(1, { seconds: 1.2, idleSeconds: -0.8 })], {}, /\(1\.67x\)/],
    ['time that no op accounts for', [step(0), step(1, { idleSeconds: 0.4 })], {}, /op time \+ idle/],
  ];
  it.each(broken)('fails on %s', (_name, steps, changes, expected) => {
    const { ok, failures } = judge(compareRun(PLAN, result(steps, changes)));
    expect(ok).toBe(false);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatch(expected);
  });

  it('fails on memory that was measured in no step, pool by pool', () => {
    const { failures } = judge(compareRun(PLAN, result([step(0), step(1, { memoryMeasured: false })])));
    expect(failures.map((line) => line.split(' ')[0])).toEqual(['hbm', 'host', 'disk']);
    expect(failures[0]).toMatch(/measured in no step$/);
  });

  const slow = compareRun(PLAN, result([step(0), step(1, { seconds: 3.3, idleSeconds: 1.3 })]));
  const stepLine = (options: Parameters<typeof judge>[1]) => {
    const { kept, failures } = judge(slow, options);
    return { kept: kept.find((line) => line.startsWith('step time')), failed: failures.find((line) => line.startsWith('step time')) };
  };

  it('holds the step against the speed that the machine has now', () => {
    expect(stepLine({ stepTime: true }).failed).toContain('(1.65x)');
    expect(stepLine({ stepTime: true, speedFactor: 0.95 }).failed).toContain(
      "planned 2.00 s, at today's speed 2.11 s, measured 3.30 s (1.57x)",
    );
    expect(stepLine({ stepTime: true, speedFactor: 0.8 })).toEqual({
      kept: "step time within 1.5x: planned 2.00 s, at today's speed 2.50 s, measured 3.30 s (1.32x); the machine now runs at 0.80 times the speed it was calibrated at",
      failed: undefined,
    });
  });

  it('does not fail a step for what a changed machine may have done, but says so', () => {
    expect(stepLine({ stepTime: true, speedFactor: 1.2 })).toEqual({
      kept: "step time not judged, the machine now runs at 1.20 times the speed it was calibrated at: planned 2.00 s, at today's speed 1.67 s, measured 3.30 s (1.98x)",
      failed: undefined,
    });
    expect(stepLine({ stepTime: false, speedFactor: 1.2 })).toEqual({ kept: undefined, failed: undefined });
  });
});

describe('progress', () => {
  it('is one line with step, loss, speed and memory against plan', () => {
    expect(progressLine(PLAN, step(1))).toBe(
      'step 2/3  loss 4.9000  lr 1.00e-4  grad norm 0.750  2.10 s (plan 2.00 s)  476 tokens/s  hbm 99 MiB of 100 MiB planned  host 10 MiB of 10 MiB planned',
    );
    expect(progressLine(PLAN, step(1, { poolBytes: { hbm: 1, disk: 4096 } }))).toContain('  disk 4 KiB of 0 B planned');
  });

  it('says nothing of memory in a step that did not measure it', () => {
    expect(progressLine(PLAN, step(0))).toBe('step 1/3  loss 5.0000  lr 1.00e-4  grad norm 0.750  2.10 s (plan 2.00 s)  476 tokens/s');
  });

  it('leaves out a learning rate and a norm that DeepSpeed does not have, and writes a norm of any size', () => {
    expect(progressLine(PLAN, step(0, { learningRate: null, gradientNorm: null }))).toContain('loss 5.0000  2.10 s');
    const norms = [0, 0.0012345, 12.345, 65536].map(
      (gradientNorm) => /grad norm (\S+)/.exec(progressLine(PLAN, step(0, { gradientNorm })))?.[1],
    );
    expect(norms).toEqual(['0.00', '1.23e-3', '12.3', '6.55e+4']);
  });

  it('says the loss scale of fp16, and which steps it skipped', () => {
    const half = { ...PLAN, run: { ...PLAN.run, dtype: 'float16' as const } };
    expect(progressLine(half, step(0, { lossScale: 65536 }))).toMatch(/ {2}loss scale 65536$/);
    const skipped = step(0, { lossScale: 65536, skipped: true, nonFinite: ['gradientNorm'] });
    expect(progressLine(half, skipped)).toMatch(/ {2}not finite: gradientNorm {2}step skipped, loss scale 65536$/);
    const text = comparisonToText(compareRun(half, result([skipped, step(1), step(2)])));
    expect(text).toMatch(/\n1 step skipped: gradients were not finite, and the weights stayed as they were$/);
    expect(comparisonToText(compareRun(half, result([step(0)])))).not.toContain('skipped');
  });

  it('names what was not finite', () => {
    expect(progressLine(PLAN, step(0, { loss: null, nonFinite: ['loss'] }))).toMatch(/loss not finite.*not finite: loss$/);
  });
});
