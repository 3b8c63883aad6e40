import { describe, expect, it } from 'vitest';
import type { Strategy } from '../../src/chunk/strategy.js';
import { buildSchedule } from '../../src/schedule/build.js';
import type { SectionName } from '../../src/schedule/op.js';
import type { PolicyName } from '../../src/spec/types.js';
import { smallContext } from './context.js';

/** Chunk copies of a section by direction and tensor, as `fetch k`. */
function copiesOf(policy: PolicyName, numChunks: number, section: SectionName, more: Partial<Strategy> = {}): Record<string, number> {
  const { schedule, buffers } = buildSchedule(smallContext(policy, numChunks, more), () => 0);
  const counts: Record<string, number> = {};
  for (const op of schedule[section].ops) {
    if (op.kind !== 'fetch' && op.kind !== 'offload') continue;
    for (const access of op.kind === 'fetch' ? op.reads : op.writes) {
      const key = `${op.kind} ${buffers[access.buffer]?.name}`;
      counts[key] = (counts[key] ?? 0) + 1;
    }
  }
  return counts;
}

describe('copies of a layer', () => {
  it.each([2, 4, 8, 16])('fpdt with %i chunks moves what its formula says', (u) => {
    const past = (u * (u - 1)) / 2;
    const pairs = (u * (u + 1)) / 2;
    expect(copiesOf('fpdt', u, 'layerForward')).toEqual({
      'fetch x': u,
      'offload x': u,
      'offload k': u - 1,
      'offload v': u - 1,
      'fetch k': past,
      'fetch v': past,
    });
    expect(copiesOf('fpdt', u, 'layerBackward')).toEqual({
      'fetch x': 3 * u,
      'offload k': u,
      'offload v': u,
      'fetch k': past + u,
      'fetch v': past + u,
      'offload q': u,
      'offload o': u,
      'offload lse': u,
      'offload do': u,
      'fetch q': pairs,
      'fetch o': pairs + u,
      'fetch lse': pairs,
      'fetch do': pairs,
      'offload dq': past,
      'fetch dq': past,
    });
  });

  it.each(['layerForward', 'layerBackward'] as const)('auto with all resident copies nothing in %s', (section) => {
    expect(copiesOf('auto', 8, section)).toEqual({});
  });

  it('auto with outputs and checkpoints on the host moves each of them once a direction, and x for each of its three uses', () => {
    const more = { attentionOutput: 'host', checkpoints: 'host' } as const;
    expect(copiesOf('auto', 8, 'layerForward', more)).toEqual({ 'fetch x': 8, 'offload x': 8, 'offload o': 8, 'offload lse': 8 });
    expect(copiesOf('auto', 8, 'layerBackward', more)).toEqual({ 'fetch x': 16, 'fetch o': 8, 'fetch lse': 8 });
  });

  it('a ring holds a constant number of chunks, however many there are', () => {
    const rows = (u: number): readonly (readonly [string, number | undefined])[] =>
      buildSchedule(smallContext('fpdt', u), () => 0)
        .buffers.filter(({ name }) => name.endsWith('.staged'))
        .map(({ name, shape }) => [name, shape[0]]);
    expect(rows(16)).toEqual(rows(8));
  });
});
