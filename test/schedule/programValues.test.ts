import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Call, turnName } from '../../src/schedule/program.js';
import { type Schedule, sectionNamed } from '../../src/schedule/schedule.js';
import { anyPlacement, EVERY_KIND, type SmallRange, smallSchedule } from './context.js';

describe('what calls find', () => {
  it.each(EVERY_KIND)(
    '%s: the value of its role behind every parameter, and the weights it needs gathered',
    (_name, policy, numChunks, more) => {
      const schedule = smallSchedule(policy, numChunks, more);
      expect(missingValues(schedule)).toEqual([]);
      expect(weightFaults(schedule, more.run?.zeroStage ?? 3)).toEqual([]);
    },
  );

  it('random ranges and segments', () => {
    const anyRanges = fc.array(fc.tuple(anyPlacement(), fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 })), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(anyRanges, (placed) => {
        let start = 0;
        const ranges = placed.map(([placement, segments]): SmallRange => {
          const end = start + segments.reduce((sum, length) => sum + length, 0);
          const layers = [start, end] as const;
          start = end;
          return { ...placement, layers, segments };
        });
        const schedule = smallSchedule('auto', 2, { ranges, model: { numLayers: start } });
        expect(missingValues(schedule)).toEqual([]);
        expect(weightFaults(schedule, 3)).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });
});

/**
 * Runs the program on names alone: each instance of each buffer holds the value that the last call left in it. Returns what a call did
 * not find, or overwrote while it was still to be read: a checkpoint before its layer's backward.
 */
function missingValues({ sections, programs }: Schedule): readonly string[] {
  const held = new Map<string, string>();
  const faults: string[] = [];
  for (const turn of programs.train.turns) {
    for (const call of turn.calls) {
      const section = sectionNamed(sections, call.section);
      const places = section.params.map((_, param) => placesOf(param, call, section.ops));
      for (const [param, { name, entry }] of section.params.entries()) {
        const expected = entry && `${entry.value} ${entry.layer + (call.layer ?? 0)}`;
        for (const place of places[param] ?? []) {
          if (expected !== undefined && held.get(place) !== expected)
            faults.push(`${turnName(turn)}, ${call.section}: ${name} is ${held.get(place)} in ${place}, not ${expected}`);
        }
      }
      for (const [param, { exit }] of section.params.entries()) {
        for (const place of places[param] ?? []) if (exit !== undefined) held.set(place, `${exit.value} ${exit.layer + (call.layer ?? 0)}`);
      }
    }
  }
  return faults;
}

/** Instances that a call's parameter names: one of a buffer, or in a file one for each chunk. */
function placesOf(param: number, { args }: Call, ops: Schedule['sections'][number]['ops']): readonly string[] {
  const accesses = ops.flatMap((op) => [...op.reads, ...op.writes, ...op.accumulates]).filter((access) => access.param === param);
  return [...new Set(accesses.map(({ buffer, index }) => `buffer ${buffer}#${(args[param] ?? Number.NaN) + index}`))];
}

/** Calls under weights that are not there, weights gathered twice or kept, and gathers that no other call hides. */
function weightFaults({ programs }: Schedule, zeroStage: number): readonly string[] {
  const faults: string[] = [];
  for (const turn of programs.train.turns) {
    /** With the calls that used weights before. */
    const gathered = new Map<number | undefined, number>(zeroStage === 3 ? [] : [[turn.layer, -1]]);
    let numUses = 0;
    for (const { section, layer, owner } of turn.calls) {
      const fault = (text: string): number => faults.push(`${turnName(turn)}, ${section} ${layer}: ${text}`);
      if (section === 'gather') {
        if (gathered.has(layer)) fault('gathered already');
        gathered.set(layer, owner === 'zero' ? -1 : numUses);
      } else if (section === 'release') {
        if (!gathered.delete(layer)) fault('not gathered');
      } else if (owner === 'plan' && layer !== undefined && !section.startsWith('relocate')) {
        if (!gathered.has(layer)) fault('its weights are not gathered');
        if (numUses > 0 && gathered.get(layer) === numUses) fault('gathered only just before');
        numUses += 1;
      }
    }
    if (zeroStage < 3) gathered.delete(turn.layer);
    if (gathered.size > 0) faults.push(`${turnName(turn)}: keeps the weights of ${[...gathered.keys()].join()}`);
  }
  return faults;
}
