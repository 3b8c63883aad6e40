import { describe, expect, it } from 'vitest';
import { simulateProgram } from '../../src/predict/simulate.js';
import { inputOf, type TimedOp, type TimedProgram } from './samples.js';

const [COMPUTE, COMM, H2D, D2H] = [0, 1, 2, 3];
const SIDE_BY_SIDE = { serial: false };

function run(ops: readonly TimedOp[], more: Partial<TimedProgram> = {}, free = {}) {
  return simulateProgram(
    inputOf({ sections: [{ name: 'one', ops }], turns: [{ calls: [{ section: 'one' }] }], device: SIDE_BY_SIDE, ...more }, free),
  );
}

/** Two fetches, each used by the op behind it. */
const PIPELINE: readonly TimedOp[] = [
  { stream: H2D, seconds: 2 },
  { stream: COMPUTE, seconds: 5, waits: [0] },
  { stream: H2D, seconds: 4 },
  { stream: COMPUTE, seconds: 5, waits: [2] },
];

describe('a call', () => {
  it('runs streams side by side, each in order, and starts an op when its waits are over', () => {
    const { microStepSeconds, sections } = run(PIPELINE);
    expect(microStepSeconds).toBe(12);
    expect([...(sections.get('one')?.busySeconds ?? [])]).toEqual([10, 0, 6, 0]);
    expect(run(PIPELINE, {}, { copies: true }).microStepSeconds).toBe(10);
  });

  it('on a serial device takes the sum of all ops', () => {
    expect(run(PIPELINE, { device: { serial: true } }).microStepSeconds).toBe(16);
    expect(run(PIPELINE, { device: { serial: true } }, { copies: true }).microStepSeconds).toBe(10);
  });

  it('starts no op before the host has issued it', () => {
    const ops = [
      { stream: COMPUTE, seconds: 1, host: 3 },
      { stream: COMPUTE, seconds: 1, host: 3 },
      { stream: COMM, seconds: 1, host: 3 },
    ];
    expect(run(ops).microStepSeconds).toBe(10);
    expect(run(ops, {}, { host: true }).microStepSeconds).toBe(2);
  });

  it('copies of both directions slow each other down only while both run', () => {
    const duplex = { serial: false, duplex: { streams: [H2D, D2H], slowdown: 2 } } as const;
    const ops = [
      { stream: H2D, seconds: 2 },
      { stream: D2H, seconds: 4 },
    ];
    const { microStepSeconds, sections } = run(ops, { device: duplex });
    expect(microStepSeconds).toBe(6);
    expect([...(sections.get('one')?.busySeconds ?? [])]).toEqual([0, 0, 4, 6]);
  });
});

describe('a program', () => {
  const sections = [
    {
      name: 'first',
      ops: [
        { stream: COMPUTE, seconds: 4 },
        { stream: D2H, seconds: 10, waits: [0] },
      ],
    },
    {
      name: 'second',
      ops: [
        { stream: H2D, seconds: 3 },
        { stream: COMPUTE, seconds: 5, waits: [0] },
      ],
    },
  ];
  const calls = (waits: readonly number[]): TimedProgram => ({
    sections,
    turns: [{ calls: [{ section: 'first' }] }, { calls: [{ section: 'second', waits }] }],
    device: SIDE_BY_SIDE,
  });

  it('does not join streams between calls: what one leaves running overlaps with the next', () => {
    const overlapped = simulateProgram(inputOf(calls([0, 0, 0, 0])));
    expect(overlapped.microStepSeconds).toBe(14);
    expect(overlapped.sections.get('first')?.advanceSeconds).toBe(14);
    expect(overlapped.sections.get('second')?.advanceSeconds).toBe(0);
  });

  it('waits where the entry mask says so, stream by stream', () => {
    const h2dAfterD2h = 1 << D2H;
    expect(simulateProgram(inputOf(calls([0, 0, h2dAfterD2h, 0]))).microStepSeconds).toBe(14 + 3 + 5);
    expect(simulateProgram(inputOf(calls([0, 0, 1 << COMPUTE, 0]))).microStepSeconds).toBe(14);
    expect(simulateProgram(inputOf(calls([h2dAfterD2h, 0, 0, 0]))).microStepSeconds).toBe(14 + 5);
  });

  it('a copy of an earlier call slows those of the next while it lasts', () => {
    const device = { serial: false, duplex: { streams: [H2D, D2H], slowdown: 2 } } as const;
    const program: TimedProgram = {
      sections: [
        { name: 'out', ops: [{ stream: D2H, seconds: 4 }] },
        { name: 'in', ops: [{ stream: H2D, seconds: 5 }] },
      ],
      turns: [{ calls: [{ section: 'out' }, { section: 'in' }] }],
      device,
    };
    expect(simulateProgram(inputOf(program)).microStepSeconds).toBe(4 + 3);
  });

  it("ZeRO's work beside a turn is exposed as far as it is longer, and else stands alone", () => {
    const turn = (beside: boolean, gatherSeconds: number, reduceSeconds: number) =>
      run([{ stream: COMPUTE, seconds: 10 }], { turns: [{ calls: [{ section: 'one' }], gatherSeconds, reduceSeconds }], beside });
    expect(turn(true, 4, 4).microStepSeconds).toBe(10);
    expect(turn(true, 4, 9).microStepSeconds).toBe(13);
    expect(turn(true, 12, 9).microStepSeconds).toBe(21);
    expect(turn(false, 4, 9).microStepSeconds).toBe(23);
    expect(turn(true, 12, 9).sections.get('gather')).toMatchObject({ calls: 1, advanceSeconds: 2 });
  });

  it('calls of a section that is not there are refused', () => {
    expect(() => run([], { turns: [{ calls: [{ section: 'two' }] }] })).toThrow(/two, which is not a section/);
  });
});

describe('waits that can never be met', () => {
  const waits = (...lists: readonly (readonly number[])[]): readonly TimedOp[] =>
    lists.map((list, i) => ({ stream: [H2D, COMPUTE, H2D, COMPUTE, D2H][i] ?? COMPUTE, seconds: 1, waits: list }));

  it('are named with everything behind them', () => {
    const stuck = () => run(waits([3], [0], [], [2], []));
    expect(stuck).toThrow(expect.objectContaining({ code: 'schedule-stuck' }));
    expect(stuck).toThrow(/4 ops of one can never start/);
    expect(stuck).toThrow(/op 0 copy: waits for op 3 post on compute, which is issued later/);
    expect(stuck).toThrow(/op 1 post: waits for op 0 copy on h2d, which never starts/);
    expect(stuck).toThrow(/op 2 copy: is behind op 0 on h2d/);
    expect(stuck).toThrow(/op 3 post: waits for op 2 copy on h2d, which never starts/);
    expect(stuck).not.toThrow(/op 4/);
  });

  it('are those for itself and for ops that do not exist too', () => {
    expect(() => run(waits([0]))).toThrow(/issued by itself/);
    expect(() => run(waits([9]))).toThrow(/waits for op 9, which does not exist/);
  });
});
