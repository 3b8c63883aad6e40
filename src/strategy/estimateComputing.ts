/**
 * What computing alone takes, which no schedule of a strategy is faster than: a polynomial of degree two in the number of chunks, without
 * waits, for which programs of one to three are enough. Merges of ranges of keys that were cut are left out where there are many chunks.
 */
import { callSeconds, computeSeconds } from '../predict/computeTime.js';
import { deviceOf } from '../predict/device.js';
import { buildSchedule, placeSchedule, unordered } from '../schedule/build.js';
import type { LogicalSection } from '../schedule/logical.js';
import {
  declareTensors,
  mostRangeChunks,
  type PolicyContext,
  type SectionToWrite,
  sectionWriters,
  type StepProgram,
  stepProgram,
} from '../schedule/policies/index.js';
import type { Strategy } from '../spec/strategy.js';
import { windowChunks } from './fewChunks.js';
import { perSetting } from './perSetting.js';
import { quadratic } from './quadratic.js';
import { type Setting, policyContext, scratchFormula } from './setting.js';

/** Seconds of one optimizer step. */
export function estimateComputing(setting: Setting, strategy: Strategy): number {
  const program = stepProgram(policyContext(setting, strategy));
  const points = pointsOf(setting, strategy);
  const isSerial = deviceOf(setting.cluster, setting.machine.streams).serial;
  return computeSeconds(program.turns, setting, isSerial ? wholeSeconds(setting, points) : knownSeconds(setting, points, program));
}

/** Small programs, and where on the line through their numbers of chunks the strategy is. */
interface Points {
  readonly contexts: readonly PolicyContext[];
  readonly at: number;
}

function pointsOf(setting: Setting, strategy: Strategy): Points {
  const { numChunks, kvTileChunks } = strategy;
  const few = Math.max(kvTileChunks, windowChunks(strategy, setting.model));
  const of = (count: number, rangeChunks: number): PolicyContext => ({
    ...policyContext(setting, { ...strategy, numChunks: count }),
    rangeChunks,
  });
  if (numChunks <= few + 2 * kvTileChunks) return { contexts: [of(numChunks, mostRangeChunks(strategy))], at: 0 };
  const counts = [few, few + kvTileChunks, few + 2 * kvTileChunks];
  return { contexts: counts.map((count) => of(count, numChunks)), at: (numChunks - few) / kvTileChunks };
}

/** Of a call of a section. */
type Seconds = (section: string) => number;

/** Where one thread executes all streams, copies are computing too. */
function wholeSeconds(setting: Setting, { contexts, at }: Points): Seconds {
  const all = contexts.map((context) => callSeconds({ ...setting, ...buildSchedule(context, setting.machine, scratchFormula(setting)) }));
  return (section) =>
    quadratic(
      all.map((seconds) => seconds(section)),
      at,
    );
}

const knownPrices = perSetting(() => new Map<string, number>());

/** Strategies of one search have most sections in common. */
function knownSeconds(setting: Setting, points: Points, program: StepProgram): Seconds {
  const known = knownPrices(setting);
  const keyOf = keysOf(points, program);
  const called = new Set(program.turns.flatMap(({ calls }) => calls.flatMap(({ owner, section }) => (owner === 'plan' ? [section] : []))));
  const writers = points.contexts.map((context) => sectionWriters(context, program).filter(({ name }) => called.has(name)));
  const [sections = []] = writers;
  const isNew = sections.map((section) => !known.has(keyOf(section)));
  const found = writers.map((all, i) => {
    const missing = all.filter((_, n) => isNew[n] === true).map(({ write }) => write());
    return secondsOf(setting, points.contexts[i] as PolicyContext, missing);
  });
  for (const [n, section] of sections.entries()) {
    const values = isNew[n] === true ? found.map((seconds) => seconds(section.name)) : [];
    if (values.length > 0) known.set(keyOf(section), quadratic(values, points.at));
  }
  const keys = new Map(sections.map((section) => [section.name, keyOf(section)]));
  return (section) => known.get(keys.get(section) ?? '') ?? 0;
}

/** What the compute ops of a section hang on. */
function keysOf({ contexts: [context], at }: Points, { relocations }: StepProgram): (section: SectionToWrite) => string {
  const { numChunks, chunkTokens, kvTileChunks, numLossTiles, numTokenTiles, headGroups } = (context as PolicyContext).strategy;
  const sizes = [numChunks, chunkTokens, kvTileChunks, numLossTiles, numTokenTiles, headGroups, context?.rangeChunks, at];
  const all = JSON.stringify([sizes, relocations]);
  return ({ name, layer }) => {
    if (layer === undefined) return `${name} ${all}`;
    const { suffix, rebuilds: _, isRebuilt: __, ...ops } = layer;
    return `${name.slice(0, name.length - suffix.length)} ${all} ${JSON.stringify(ops)}`;
  };
}

/** Nothing is moved: copies are on streams of their own. */
function secondsOf(setting: Setting, context: PolicyContext, sections: readonly LogicalSection[]): Seconds {
  if (sections.length === 0) return () => 0;
  const logical = { tensors: declareTensors(context), sections, turns: [], tables: [] };
  return callSeconds({ ...setting, ...placeSchedule(logical, context, setting.machine, () => 0, unordered) });
}
