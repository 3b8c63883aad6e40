import { describe, expect, it } from 'vitest';
import { bufferRange, byteRange, instanceOf } from '../../src/address/bytes.js';
import { completionClocks, orderOf, streamNumbers } from '../../src/address/clocks.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Op } from '../../src/schedule/op.js';

const STREAMS = ['compute', 'comm', 'h2d'];

function ops(...list: readonly (readonly [stream: string, ...waits: number[]])[]): readonly Op[] {
  const tokens = { start: 0, end: 1 };
  return list.map(([stream, ...waits], id) => ({
    id,
    kind: 'zero',
    stream,
    tokens,
    reads: [],
    writes: [],
    accumulates: [],
    waits,
    scratchBytes: 0,
  }));
}

describe('completionClocks', () => {
  const rows = (list: readonly Op[]): readonly (readonly number[])[] => {
    const clocks = completionClocks(orderOf(list, STREAMS), STREAMS.length);
    return list.map((_, id) => [...clocks.subarray(id * STREAMS.length, (id + 1) * STREAMS.length)]);
  };

  it('knows what its stream has done, what it waits for, and what that knew', () => {
    const section = ops(['h2d'], ['compute', 0], ['comm', 1], ['h2d'], ['compute'], ['compute', 2, 3]);
    expect(rows(section)).toEqual([
      [-1, -1, -1],
      [-1, -1, 0],
      [1, -1, 0],
      [-1, -1, 0],
      [1, -1, 0],
      [4, 2, 3],
    ]);
  });

  it('forgets nothing when it waits for something older', () => {
    expect(rows(ops(['h2d'], ['h2d'], ['compute', 1], ['compute', 0])).at(-1)).toEqual([2, -1, 1]);
  });
});

it('numbers streams, 255 for one that is not there', () => {
  expect([...streamNumbers(ops(['h2d'], ['d2h'], ['compute']), STREAMS)]).toEqual([2, 255, 0]);
});

describe('byteRange', () => {
  const buffer: Buffer = {
    id: 0,
    name: 'x',
    pool: 'host',
    dtype: 'bfloat16',
    shape: [8, 3],
    strides: [3, 1],
    instances: 4,
    instanceBytes: 64,
    offset: 1000,
    scope: 'step',
  };

  it('is of the instance that the access and its argument name', () => {
    const rows = { start: 2, end: 4 };
    expect(byteRange({ buffer: 0, rows, param: -1, index: 1 }, buffer, [3])).toEqual({ start: 1076, end: 1088 });
    expect(byteRange({ buffer: 0, rows, param: 0, index: 1 }, buffer, [2])).toEqual({ start: 1204, end: 1216 });
    expect(instanceOf({ param: 1, index: 1 }, [0, 2])).toBe(3);
  });

  it('lies in the range of the buffer', () => {
    expect(bufferRange(buffer)).toEqual({ start: 1000, end: 1256 });
  });
});
