import { describe, expect, it } from 'vitest';
import type { LogicalSection, Tensor } from '../../src/schedule/logical.js';
import { moveData } from '../../src/schedule/passes/moveData.js';
import { logicalSchedule } from '../../src/schedule/policies/index.js';
import { EVERY_KIND, PLACES, smallContext } from './context.js';
import { Memory, run } from './interpreter.js';

/** More than any tensor has chunks, partial results counted. */
const MANY = 1000;

describe('rings and staging change no value', () => {
  it.each(EVERY_KIND)('%s', (_name, policy, numChunks, more) => {
    const context = smallContext(policy, numChunks, { ...more, chunkTokens: 2, localChunkTokens: 1 });
    const logical = logicalSchedule(context);
    const staged = moveData(logical, PLACES, context.strategy.prefetchDepth);
    const kept = logical.tensors.filter(({ scope }) => scope === 'step');
    /** No ring comes around, nothing is away. */
    const unbounded = logical.tensors.map((tensor) => (tensor.scope === 'call' ? { ...tensor, slots: MANY } : tensor));
    for (const [i, section] of logical.sections.entries()) {
      const expected = results(section, unbounded, kept);
      expect(results(staged.sections[i] as LogicalSection, staged.tensors, kept), section.name).toEqual(expected);
    }
  });
});

/** What outlives the section, each of whose parameters has an instance of its own where there are so many. */
function results(
  section: LogicalSection,
  tensors: readonly Tensor[],
  kept: readonly Tensor[],
): Readonly<Record<string, readonly number[]>> {
  const memory = new Memory(tensors);
  memory.fill(kept.map(({ name }) => name));
  const instances = (param: string): number => {
    const refs = section.ops.flatMap(({ reads, writes, accumulates }) => [...reads, ...writes, ...accumulates]);
    const named = new Set(refs.filter((ref) => ref.param === param).map(({ tensor }) => tensor));
    return Math.min(...tensors.filter(({ name }) => named.has(name)).map((tensor) => tensor.instances));
  };
  const wanted = (name: string): number => (name === 'y' || name === 'to' ? 1 : 0);
  run(section, memory, new Map(section.params.map(({ name }) => [name, Math.min(wanted(name), instances(name) - 1)])));
  return Object.fromEntries(kept.map(({ name }) => [name, memory.all(name)]));
}
