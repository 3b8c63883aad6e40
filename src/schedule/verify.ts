/**
 * Legality of a plan's schedule, checked at the addresses the layout gave, independently of the passes that made it:
 * every op is of its kind's shape, every view lies in its buffer and arena, copies go the way their stream goes, no two
 * ops race for the same bytes, and every byte that is read was last written through the same buffer.
 */
import type { Buffer } from './buffer.js';
import { checkOpShape, checkView } from './legality.js';
import { MemoryState } from './memoryState.js';
import type { Section, SectionName } from './op.js';
import { checkRaces } from './races.js';
import { opToText } from './text.js';

export interface Violation {
  readonly section: SectionName;
  readonly op: number;
  readonly text: string;
  readonly problem: string;
}

export interface VerifyInput {
  readonly schedule: Readonly<Record<SectionName, Section>>;
  readonly buffers: readonly Buffer[];
  readonly arenas: { readonly hbm: number; readonly host: number };
  readonly numSegments: number;
  readonly segmentLayers: number;
}

/** All violations found, in schedule order; empty when the schedule is legal. */
export function verifySchedule(input: VerifyInput): readonly Violation[] {
  const shape = Object.values(input.schedule).flatMap((section) => checkShapes(section, input));
  if (shape.length > 0) return shape;
  const races = Object.values(input.schedule).flatMap((section) => describe(section, input, checkRaces(section, input)));
  return [...races, ...checkValues(input)];
}

export interface Finding {
  readonly op: number;
  readonly problem: string;
}

function describe(section: Section, { buffers }: VerifyInput, findings: readonly Finding[]): readonly Violation[] {
  return findings.map(({ op, problem }) => {
    const found = section.ops[op];
    return { section: section.name, op, text: found === undefined ? '' : opToText(found, buffers), problem };
  });
}

function checkShapes(section: Section, input: VerifyInput): readonly Violation[] {
  const findings: Finding[] = [];
  for (const [position, op] of section.ops.entries()) {
    const report = (problems: readonly string[]): void => {
      for (const problem of problems) findings.push({ op: position, problem });
    };
    report(checkOpShape(op, position, section));
    for (const group of [op.reads, op.writes, op.accumulates]) {
      for (const access of group) report(checkView(op, access, input));
    }
  }
  return describe(section, input, findings);
}

/**
 * Runs the sections of one micro-step in program order over a map of which buffer wrote each byte last. Forward checks the first
 * two segments, backward the last two: the others repeat them with other instances, whose numbers checkView has checked.
 */
function checkValues(input: VerifyInput): readonly Violation[] {
  const state = new MemoryState(input);
  const run = (name: SectionName, segment: number): readonly Violation[] =>
    describe(input.schedule[name], input, state.runSection(input.schedule[name], segment));
  const segments = Array.from({ length: input.numSegments }, (_, segment) => segment);
  const forward = (segment: number): readonly Violation[] => {
    if (segment < 2) return run('layerForward', segment);
    state.skipSection(input.schedule.layerForward, segment);
    return [];
  };
  const backward = segments.toReversed().slice(0, 2);
  const found = [
    ...run('embedForward', 0),
    ...segments.flatMap(forward),
    ...run('lossForwardBackward', 0),
    ...backward.flatMap((segment) => run('layerBackward', segment)),
    ...run('embedBackward', 0),
    ...run('stepEnd', 0),
  ];
  const seen = new Set<string>();
  return found.filter(({ section, op, problem }) => !seen.has(`${section}/${op}/${problem}`) && seen.add(`${section}/${op}/${problem}`));
}
