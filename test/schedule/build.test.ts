import { describe, expect, it } from 'vitest';
import { OP_ROWS, type OpKind } from '../../src/catalog/ops/index.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import { type Schedule, sectionNamed } from '../../src/schedule/schedule.js';
import { EVERY_KIND, type Small, smallContext, smallSchedule } from './context.js';

const RECTANGLE = { masks: { rectangle: true, window: true } } as const;

const opsOf = ({ sections }: Schedule, section: string, kind: OpKind): readonly Op[] =>
  sectionNamed(sections, section).ops.filter((op) => op.kind === kind);

const counts = (schedule: Schedule, section: string, ...kinds: readonly OpKind[]): readonly number[] =>
  kinds.map((kind) => opsOf(schedule, section, kind).length);

describe.each(EVERY_KIND)('%s', (_name, policy, numChunks, more) => {
  const schedule = smallSchedule(policy, numChunks, more);
  const ops = schedule.sections.flatMap((section) => section.ops.map((op) => ({ section, op })));

  it('every op has the views and the stream its kind declares, and waits only for earlier ops of other streams', () => {
    for (const { section, op } of ops) {
      const row = OP_ROWS[op.kind];
      for (const group of ['reads', 'writes', 'accumulates'] as const) {
        const declared = row[group];
        if (declared !== 'many') expect(op[group], `${section.name} ${op.id} ${op.kind} ${group}`).toHaveLength(declared.length);
      }
      if (row.pairs) expect(op.reads).toHaveLength(op.writes.length);
      if (row.stream !== 'link') expect(op.stream).toBe(row.stream);
      expect(schedule.streams).toContain(op.stream);
      for (const wait of op.waits) {
        expect(wait).toBeLessThan(op.id);
        expect(section.ops[wait]?.stream).not.toBe(op.stream);
      }
    }
  });

  it('every view is of rows and instances that its buffer has, in every call', () => {
    const calls = schedule.programs.train.turns.flatMap((turn) => turn.calls);
    for (const { section, op } of ops) {
      const args = calls.filter((call) => call.section === section.name).map((call) => call.args);
      for (const access of [...op.reads, ...op.writes, ...op.accumulates]) expect(outside(access, args, schedule)).toEqual([]);
    }
  });

  it('every call binds every parameter of its section, to instances of their own; a last layer whose chunks are staged, its output to its input', () => {
    const { model, strategy } = smallContext(policy, numChunks, more);
    for (const { section, args, layer } of schedule.programs.train.turns.flatMap((turn) => turn.calls)) {
      const { params } = sectionNamed(schedule.sections, section);
      expect(args).toHaveLength(params.length);
      const bound = params.flatMap((_, n) =>
        touchedBy(n, sectionNamed(schedule.sections, section)).map((buffer) => `${buffer}#${args[n]}`),
      );
      const isStaged = strategy.layers.at(-1)?.checkpoints !== 'hbm';
      const isInPlace = isStaged && layer === model.numLayers - 1 && section.startsWith('layerForward');
      expect(new Set(bound).size).toBe(bound.length - (isInPlace ? 1 : 0));
    }
  });

  it('nothing is built that no call uses', () => {
    const called = schedule.programs.train.turns.flatMap((turn) => turn.calls.map(({ section }) => section));
    expect(new Set(called)).toEqual(new Set(schedule.sections.map(({ name }) => name)));
    const touched = ops.flatMap(({ op }) => [...op.reads, ...op.writes, ...op.accumulates].map(({ buffer }) => buffer));
    expect(new Set(touched).size).toBe(schedule.buffers.length);
    const attributes = ops.flatMap(({ op }) => (op.attribute === undefined ? [] : [op.attribute]));
    expect(new Set(attributes).size).toBe(schedule.attributes.length);
  });
});

/** What is wrong with the place of an access. */
function outside({ buffer, rows, param, index }: Access, args: readonly (readonly number[])[], { buffers }: Schedule): readonly string[] {
  const { name, shape, instances } = buffers[buffer] ?? { name: `buffer ${buffer}`, shape: [0], instances: 0 };
  const numbers = args.map((bound) => (param < 0 ? index : index + (bound[param] ?? Number.NaN)));
  return [
    ...(0 <= rows.start && rows.start < rows.end && rows.end <= (shape[0] ?? 0) ? [] : [`rows ${rows.start}:${rows.end} of ${name}`]),
    ...numbers.filter((number) => !(0 <= number && number < instances)).map((number) => `instance ${number} of ${name}`),
  ];
}

/** Buffers that a parameter names instances of. */
function touchedBy(param: number, { ops }: Section): readonly number[] {
  const accesses = ops.flatMap((op) => [...op.reads, ...op.writes, ...op.accumulates]);
  return [...new Set(accesses.filter((access) => access.param === param).map(({ buffer }) => buffer))];
}

describe('attention over keys and values that are at hand', () => {
  it('is one op a chunk where the kernel has rectangles: its result is final, and nothing is merged', () => {
    for (const attentionOutput of ['hbm', 'recompute', 'host']) {
      const schedule = smallSchedule('auto', 8, { ...RECTANGLE, attentionOutput });
      expect(counts(schedule, 'layerForward', 'attn', 'mergeFirst', 'merge', 'cast')).toEqual([8, 0, 0, 0]);
      expect(counts(schedule, 'layerBackward', 'attnBwd')).toEqual([8]);
      const result = attentionOutput === 'recompute' ? ['o', 'lse'] : attentionOutput === 'hbm' ? ['o.saved', 'lse.saved'] : RINGS;
      for (const op of opsOf(schedule, 'layerForward', 'attn')) {
        expect(op.writes.map(({ buffer }) => schedule.buffers[buffer]?.name)).toEqual(result);
        expect(op.kv).toEqual({ start: 0, end: op.tokens.end });
        expect(schedule.attributes[op.attribute ?? -1]).toEqual({ mask: { kind: 'causal' } });
      }
      expect(schedule.buffers.map(({ name }) => name)).not.toContain('oAcc');
    }
  });

  it('is two ops a chunk where it has none: the square on the diagonal, then all keys before it', () => {
    const u = 8;
    const schedule = smallSchedule('auto', u);
    expect(counts(schedule, 'layerForward', 'attn', 'mergeFirst', 'merge', 'cast')).toEqual([2 * u - 1, u - 1, u - 1, u - 1]);
    expect(counts(schedule, 'layerBackward', 'attnBwd')).toEqual([2 * u - 1]);
    const last = opsOf(schedule, 'layerForward', 'attn').slice(-2);
    expect(last.map(({ kv, attribute }) => [kv, schedule.attributes[attribute ?? -1]?.mask?.kind])).toEqual([
      [{ start: 448, end: 512 }, 'causal'],
      [{ start: 0, end: 448 }, 'full'],
    ]);
    expect(opsOf(schedule, 'layerForward', 'attn')[0]?.writes.map(({ buffer }) => schedule.buffers[buffer]?.name)).toEqual([
      'o.saved',
      'lse.saved',
    ]);
  });

  const RINGS = ['o.saved@host.hbm', 'lse.saved@host.hbm'];
});

/** Tiles of g chunks that u chunks of queries meet, summed; and the chunks that lie behind the first of their tile. */
function tiles(u: number, g: number): { readonly met: number; readonly behind: number } {
  const whole = Math.floor(u / g);
  const rest = u % g;
  return { met: (g * whole * (whole + 1)) / 2 + rest * (whole + 1), behind: u - whole - (rest > 0 ? 1 : 0) };
}

describe('attention over keys and values that are fetched', () => {
  it('fpdt attends and differentiates pair by pair', () => {
    for (const u of [1, 2, 8]) {
      const schedule = smallSchedule('fpdt', u);
      expect(counts(schedule, 'layerForward', 'attn')).toEqual([(u * (u + 1)) / 2]);
      expect(counts(schedule, 'layerBackward', 'attnBwd')).toEqual([(u * (u + 1)) / 2]);
    }
  });

  const policies = [
    ['fpdt', {}],
    ['auto', { keyValues: 'host', keyValueGradients: 'host' }],
    ['auto', { keyValueGradients: 'host' }],
  ] as const;
  it.each(policies.flatMap(([policy, more]) => [2, 3, 4, 9].map((g) => [policy, more, g] as const)))(
    '%s %o in tiles of %i: an op for each chunk and tile, one more on the diagonal of a kernel without rectangles',
    (policy, more, g) => {
      for (const u of [1, 4, 9]) {
        const small: Small = { ...more, kvTileChunks: Math.min(g, u) };
        const { met, behind } = tiles(u, Math.min(g, u));
        const [square, rectangle] = [smallSchedule(policy, u, small), smallSchedule(policy, u, { ...small, ...RECTANGLE })];
        expect(counts(square, 'layerBackward', 'attnBwd')).toEqual([met + behind]);
        expect(counts(rectangle, 'layerBackward', 'attnBwd')).toEqual([met]);
        if (more !== policies[2][1]) {
          expect(counts(square, 'layerForward', 'attn')).toEqual([met + behind]);
          expect(counts(rectangle, 'layerForward', 'attn')).toEqual([met]);
        }
      }
    },
  );
});

describe('rings', () => {
  it.each(['ulysses', 'auto'] as const)('%s: a single chunk has one slot everywhere, since nothing follows it', (policy) => {
    const { run, strategy } = smallContext(policy, 1);
    const { buffers } = smallSchedule(policy, 1);
    const rows = buffers.filter(({ shape }) => shape.length > 1).map(({ shape }) => shape[0]);
    expect(new Set(rows)).toEqual(new Set([strategy.localChunkTokens, run.seqLen]));
  });

  it.each([1, 2, 3])('gradients of k, v in the ascending order, in tiles of %i: one tile is summed while the one before goes back', (g) => {
    const rows = (numChunks: number): unknown =>
      smallSchedule('fpdt', numChunks, { kvTileChunks: g })
        .buffers.filter(({ name }) => name.endsWith('.ring'))
        .map(({ name, shape }) => [name, shape[0]]);
    expect(rows(9)).toEqual(['dk.ring', 'dv.ring'].map((name) => [name, 64 * 2 * g]));
    expect(rows(g)).toEqual(['dk.ring', 'dv.ring'].map((name) => [name, 64 * g]));
  });

  it('tiles of an op are an attribute: they change no op and no buffer', () => {
    const strip = ({ sections, buffers }: Schedule): unknown => [
      buffers,
      sections.map(({ ops }) => ops.map(({ kind, reads, writes, accumulates, waits }) => ({ kind, reads, writes, accumulates, waits }))),
    ];
    const tiled = smallSchedule('auto', 3, { numTokenTiles: 4, numLossTiles: 5 });
    expect(strip(tiled)).toEqual(strip(smallSchedule('auto', 3, { numLossTiles: 1 })));
    const tilesOf = (section: string, kind: OpKind): unknown => tiled.attributes[opsOf(tiled, section, kind)[0]?.attribute ?? -1];
    for (const kind of ['pre', 'post'] as const) expect(tilesOf('layerForward', kind)).toEqual({ tiles: 4 });
    for (const kind of ['preKv', 'preQ', 'postBwd', 'preBwd'] as const) expect(tilesOf('layerBackward', kind)).toEqual({ tiles: 4 });
    expect(tilesOf('lossForward', 'loss')).toEqual({ tiles: 5 });
  });
});
