import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { FpdtError } from '../../src/spec/errors.js';
import type { NamedPool } from '../../src/spec/pools.js';
import { parseRunInput } from '../../src/spec/runInput.js';
import { segmentLengths } from '../../src/spec/strategy.js';
import { resolveForced } from '../../src/spec/strategyInput.js';
import type { ModelSpec } from '../../src/spec/types.js';
import { errorOf, specs } from './inputs.js';

/** Names that no catalog has: the parser takes them from its argument. */
const POOLS: readonly NamedPool[] = [
  { name: 'near', kind: 'device' },
  { name: 'far', kind: 'pinned' },
];
const WITH_FILE: readonly NamedPool[] = [...POOLS, { name: 'deep', kind: 'file' }];

function forced(strategy: object | string, run: object = {}, pools = POOLS, model: Partial<ModelSpec> = {}) {
  return resolveForced(parseRunInput({ seqLen: 1024, ...run, strategy }), { ...specs().model, ...model }, pools);
}

function refusal(...args: Parameters<typeof forced>): FpdtError {
  return errorOf(() => forced(...args));
}

const ranges = (...layers: readonly (readonly [number, number])[]) => ({ layers: layers.map((range) => ({ layers: range })) });

test('a run without a strategy fixes what its options say', () => {
  expect(resolveForced(parseRunInput({ seqLen: 1, numChunks: 4 }), specs().model, POOLS)).toEqual({ knobs: { numChunks: 4 } });
});

test('a whole strategy is taken as it is, one segment length made a list', () => {
  const first = {
    layers: [0, 3],
    keyValues: 'far',
    keyValueGradients: 'near',
    attentionOutput: 'recompute',
    rebuiltOutput: 'far',
    internals: 'far',
    checkpoints: 'far',
    segments: 2,
  };
  const second = { layers: [3, 4], keyValues: 'near', attentionOutput: 'deep', checkpoints: 'deep', backwardOrder: 'queryOuterDescending' };
  const knobs = { numChunks: 8, kvTileChunks: 2, numLossTiles: 3, numTokenTiles: 4, prefetchDepth: 1 };
  expect(forced({ ...knobs, hiddenGradients: 'far', layers: [first, second] }, {}, WITH_FILE)).toEqual({
    knobs,
    places: { hiddenGradients: 'far', layers: [{ ...first, segments: [2, 1] }, second] },
  });
});

test('a strategy is read from a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fpdt-strategy-'));
  try {
    const path = join(folder, 'strategy.json');
    writeFileSync(path, JSON.stringify({ numChunks: 2 }));
    expect(forced(path)).toEqual({ knobs: { numChunks: 2 } });
    writeFileSync(path, '[]');
    expect(refusal(path).message).toBe('strategy: expected a JSON object, found []');
    expect(refusal(join(folder, 'none.json')).code).toBe('file-not-readable');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('keys and types', () => {
  test.each([
    [{ numChunk: 2 }, 'strategy', 'numChunks'],
    [{ layers: [{ layers: [0, 4], keyValue: 'near' }] }, 'strategy.layers.0', 'keyValues'],
  ])('%j is misspelt', (given, path, nearest) => {
    expect(refusal(given)).toMatchObject({ code: 'unknown-key', details: { path, nearest } });
  });

  test.each([
    [{ numChunks: '2' }, 'strategy.numChunks: expected a number, found "2"'],
    [{ kvTileChunks: 0 }, 'strategy.kvTileChunks: expected a number >= 1, found 0'],
    [{ layers: [{ layers: [0, 4], segments: '2' }] }, 'strategy.layers.0.segments: expected a number or a list, found "2"'],
    [{ layers: [{ layers: [0, 4], segments: [4, 0] }] }, 'strategy.layers.0.segments.1: expected a number >= 1, found 0'],
    [{ layers: [{ layers: [0] }] }, 'strategy.layers.0.layers: expected [first layer, layer after the last], found [0]'],
    [{ layers: [{ keyValues: 'near' }] }, 'strategy.layers.0.layers: expected [first layer, layer after the last], found nothing'],
    [{ layers: [{ layers: [0, 'x'] }] }, 'strategy.layers.0.layers.1: expected a number, found "x"'],
    [
      { layers: [{ layers: [0, 4], backwardOrder: 'ascending' }] },
      'strategy.layers.0.backwardOrder: expected "queryOuterDescending" or "keyValueOuterAscending", found "ascending"',
    ],
  ])('%j is of a wrong type', (given, message) => {
    expect(refusal(given).message).toBe(message);
  });

  test('a strategy is an object or a path', () => {
    expect(errorOf(() => parseRunInput({ seqLen: 1, strategy: 3 })).message).toBe('run.strategy: expected a text or an object, found 3');
  });
});

describe('ranges of layers', () => {
  test.each([
    [ranges([0, 2], [3, 4]), 'strategy.layers.1.layers [3, 4]: no range holds layer 2', 'start it at 2: [2, 4]'],
    [ranges([0, 1], [3, 4]), 'strategy.layers.1.layers [3, 4]: no range holds layers 1 to 2', 'start it at 1: [1, 4]'],
    [ranges([1, 4]), 'strategy.layers.0.layers [1, 4]: no range holds layer 0', 'start it at 0: [0, 4]'],
    [ranges([0, 3], [2, 4]), 'strategy.layers.1.layers [2, 4]: another range holds layer 2 already', 'start it at 3: [3, 4]'],
    [ranges([0, 4], [1, 3]), 'strategy.layers.1.layers [1, 3]: another range holds layers 1 to 2 already', 'remove it'],
    [ranges([0, 2]), 'strategy.layers.0.layers [0, 2]: no range holds layers 2 to 3', 'end it at 4: [0, 4]'],
    [ranges([0, 2], [2, 5]), 'strategy.layers.1.layers [2, 5]: the model has 4 layers', 'end it at 4: [2, 4]'],
    [ranges([0, 4], [4, 6]), 'strategy.layers.1.layers [4, 6]: the model has 4 layers', 'remove it'],
    [
      ranges([0, 2], [2, 2]),
      'strategy.layers.1.layers [2, 2]: holds no layer',
      'write [start, end): the first layer and the one after the last',
    ],
    [
      ranges([2, 4], [0, 2]),
      'strategy.layers.0.layers [2, 4]: no range holds layers 0 to 1',
      'put them in the order of their layers: [0, 2], [2, 4]',
    ],
  ])('%j', (given, message, hint) => {
    expect(refusal(given)).toMatchObject({ code: 'bad-layers', message, hint });
  });
});

describe('segments', () => {
  test('lengths are equal but for the last', () => {
    expect(segmentLengths(7, 3)).toEqual([3, 3, 1]);
    expect(segmentLengths(6, 3)).toEqual([3, 3]);
    expect(segmentLengths(2, 5)).toEqual([2]);
  });

  test('lengths may be any that sum to the range', () => {
    expect(forced({ layers: [{ layers: [0, 4], segments: [1, 3] }] }).places?.layers?.[0]?.segments).toEqual([1, 3]);
    expect(refusal({ layers: [{ layers: [0, 4], segments: [1, 2] }] })).toMatchObject({
      code: 'bad-segment',
      hint: 'a last segment of 3 works',
    });
    expect(refusal({ layers: [{ layers: [0, 4], segments: [3, 3, 1] }] })).toMatchObject({ hint: 'segments of 3, 1 work' });
  });

  test('those of the run hold for every range, and must agree with its own', () => {
    const run = { segmentLayers: 2 };
    expect(forced(ranges([0, 3], [3, 4]), run).places?.layers?.map(({ segments }) => segments)).toEqual([[2, 1], [1]]);
    expect(forced({ layers: [{ layers: [0, 4], segments: [2, 2] }] }, run).places?.layers?.[0]?.segments).toEqual([2, 2]);
    expect(refusal({ layers: [{ layers: [0, 4], segments: 3 }] }, run)).toMatchObject({
      code: 'conflict',
      message: 'run.segmentLayers 2 makes segments of 2, 2 but strategy.layers.0.segments are 3, 1',
    });
    expect(forced(ranges([0, 4])).places?.layers?.[0]).not.toHaveProperty('segments');
  });
});

describe('places', () => {
  const layer = (places: object) => ({ layers: [{ layers: [0, 4], ...places }] });

  test.each([
    [{ hiddenGradients: 'nearr' }, 'strategy.hiddenGradients', "did you mean 'near'?"],
    [layer({ keyValues: 'recompute' }), 'strategy.layers.0.keyValues', 'places that work: near, far'],
    [
      layer({ checkpoints: 'deep' }),
      'strategy.layers.0.checkpoints',
      'places that work: near, far; a file, where the cluster has diskBytes',
    ],
    [layer({ attentionOutput: 'recomputed' }), 'strategy.layers.0.attentionOutput', "did you mean 'recompute'?"],
    [
      layer({ attentionOutput: 'elsewhere' }),
      'strategy.layers.0.attentionOutput',
      'places that work: near, far, recompute; a file, where the cluster has diskBytes',
    ],
  ])('%j is nowhere in this cluster', (given, path, hint) => {
    expect(refusal(given)).toMatchObject({ code: 'bad-place', hint, details: { path } });
  });

  test.each([{ hiddenGradients: 'deep' }, layer({ keyValues: 'deep' }), layer({ keyValueGradients: 'deep' })])(
    '%j: a file cannot hold it',
    (given) => {
      const error = refusal(given, {}, WITH_FILE);
      expect(error).toMatchObject({ code: 'bad-place', hint: 'places that work: near, far' });
      expect(error.message).toContain("'deep' is a file pool and cannot hold it");
    },
  );
});

describe('key/value-outer backward', () => {
  const ascending = (more: object) => ({
    layers: [{ layers: [0, 1] }, { layers: [1, 4], backwardOrder: 'keyValueOuterAscending', ...more }],
  });

  test('needs its accumulators on the device', () => {
    expect(() => forced(ascending({ keyValueGradients: 'near' }))).not.toThrow();
    expect(refusal(ascending({ keyValueGradients: 'far' }))).toMatchObject({
      code: 'bad-order',
      hint: 'set keyValueGradients to near, or use queryOuterDescending',
      details: { path: 'strategy.layers.1.backwardOrder' },
    });
  });

  test('needs attention without a window in its own layers', () => {
    expect(() => forced(ascending({}), {}, POOLS, { windows: [8, null, null, null] })).not.toThrow();
    const error = refusal(ascending({}), {}, POOLS, { windows: [null, null, 8, null] });
    expect(error.message).toContain('layer 2 sees 8 tokens');
    expect(error.code).toBe('bad-order');
  });
});

describe('with the options of the run', () => {
  test.each(['numChunks', 'kvTileChunks', 'numLossTiles', 'numTokenTiles', 'prefetchDepth'])('%s must agree', (knob) => {
    expect(forced({ [knob]: 4 }, { [knob]: 4 }).knobs).toEqual({ [knob]: 4 });
    expect(refusal({ [knob]: 4 }, { [knob]: 8 })).toMatchObject({
      code: 'conflict',
      message: `run.${knob} is 8 but strategy.${knob} is 4`,
    });
  });

  test('both together make the RunSpec', () => {
    const strategy = { numChunks: 3, kvTileChunks: 2, numTokenTiles: 5 };
    const { run } = specs({ run: { seqLen: 1001, numLossTiles: 7, attention: 'reference', strategy } });
    expect(run).toMatchObject({
      numChunks: 3,
      kvTileChunks: 2,
      numTokenTiles: 5,
      numLossTiles: 7,
      prefetchDepth: 2,
      attention: 'reference',
    });
    expect(run.paddedSeqLen).toBe(1008);
    expect(run).not.toHaveProperty('strategy');
    expect(specs({ run: { strategy: { ...ranges([0, 4]), prefetchDepth: 3 } } }).run).toMatchObject({
      prefetchDepth: 3,
      strategy: ranges([0, 4]),
    });
    expect(errorOf(() => specs({ run: { strategy: { numChunks: 257 } } })).code).toBe('too-many-chunks');
  });

  test('a file is a place where the cluster has one', () => {
    const run = { strategy: { layers: [{ layers: [0, 4], checkpoints: 'disk' }] } };
    expect(specs({ run, cluster: { diskBytes: '1G' } }).run.strategy).toEqual(run.strategy);
    expect(errorOf(() => specs({ run }))).toMatchObject({
      code: 'bad-place',
      hint: 'places that work: hbm, host; a file, where the cluster has diskBytes',
    });
  });
});

test('products are kept of a model that has some', () => {
  const { code } = specs().model;
  const classes = code.classes.map((one) => ({ ...one, postBwdKept: { ...one.postBwdKept, widths: {} } }));
  const layers = [{ layers: [0, 4], internals: 'near' }];
  expect(refusal({ layers }, {}, POOLS, { code: { ...code, classes } })).toMatchObject({ code: 'unsupported' });
  expect(forced({ layers: [{ layers: [0, 4], internals: 'recompute' }] }, {}, POOLS, { code: { ...code, classes } })).toBeDefined();
  expect(forced({ layers })).toBeDefined();
});
