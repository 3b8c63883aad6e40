/**
 * What of a small program does not hang on the size of its chunks: which ops there are, how many slots rings have, and which buffers are
 * alive together. A search asks for the memory of hundreds of strategies that have a few dozen such shapes, and these most sections in common.
 */
import { type CallConflicts, conflictsOfCalls } from '../address/lifetimes.js';
import { placeSchedule } from '../schedule/build.js';
import { hasTemporaries } from '../catalog/ops/index.js';
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../schedule/logical.js';
import type { Op, Range } from '../schedule/op.js';
import { moveData } from '../schedule/passes/moveData.js';
import {
  declareTensors,
  layerPlan,
  type PolicyContext,
  type SectionToWrite,
  sectionWriters,
  type StepProgram,
} from '../schedule/policies/index.js';
import { ownHeads, ownKvHeads } from '../spec/parallelLayout.js';
import { perSetting } from './perSetting.js';
import { hasWindows, type Setting } from './setting.js';

export interface MemoryShape {
  /** Names of the tensors that have a buffer, in the order of the buffers. */
  readonly names: readonly string[];
  /** Staging rings, with the slots that they need. */
  readonly rings: readonly Tensor[];
  readonly calls: CallConflicts;
  readonly sections: readonly ShapedSection[];
}

/** A section with one of all ops that need alike, and of none that need nothing; and their streams. */
export interface ShapedSection {
  readonly section: LogicalSection;
  readonly streams: readonly string[];
  /** Of the program that it is of, in tokens. */
  readonly chunkTokens: number;
}

/** What a section says of the shape of every program that calls it. */
interface SectionShape {
  readonly shaped: ShapedSection;
  readonly rings: readonly Tensor[];
  /** Of the buffers that it touches. */
  readonly names: readonly string[];
  /** Those that may not overlap in a call, as positions in `names`. */
  readonly conflicts: readonly (readonly [number, number])[];
}

interface Known {
  readonly programs: Map<string, MemoryShape>;
  readonly sections: Map<string, SectionShape>;
}

/** Of a model: a limit is looked for in settings that differ in lengths, in bytes or in what ZeRO does. */
const knownOfModel = new WeakMap<Setting['model'], Map<string, Known>>();

/** All of a setting that shapes hang on. */
function factsOf({ run, layout, machine, kernels }: Setting): string {
  const { zeroStage, packing, dtype } = run;
  const pools = machine.pools.map(({ name, kind }) => [name, kind]);
  return JSON.stringify([zeroStage, packing, dtype, ownHeads(layout), ownKvHeads(layout), pools, machine.links, kernels]);
}

const knownOf = perSetting((setting): Known => {
  const ofModel = knownOfModel.get(setting.model) ?? new Map<string, Known>();
  knownOfModel.set(setting.model, ofModel);
  const facts = factsOf(setting);
  const known = ofModel.get(facts) ?? { programs: new Map<string, MemoryShape>(), sections: new Map<string, SectionShape>() };
  ofModel.set(facts, known);
  return known;
});

/** Of the program of a few chunks that `context` describes, whose calls are those of `program`. */
export function memoryShape(setting: Setting, context: PolicyContext, program: StepProgram): MemoryShape {
  const { programs: known, sections } = knownOf(setting);
  const called = [...new Set(program.turns.flatMap(({ calls }) => calls.map(({ section }) => section)))];
  const key = JSON.stringify([endsKey(context, program), sizesKey(context), layerPlan(context).classes, called]);
  const shape = known.get(key) ?? shapeOf(setting, context, program, new Set(called), sections);
  known.set(key, shape);
  return shape;
}

/** All that the ops of sections outside the layers hang on. */
function endsKey({ strategy }: PolicyContext, { relocations }: StepProgram): string {
  const { numChunks, prefetchDepth, hiddenGradients, layers } = strategy;
  return JSON.stringify([numChunks, prefetchDepth, hiddenGradients, layers[0]?.checkpoints, layers.at(-1)?.checkpoints, relocations]);
}

/** The sizes that the ops of layers hang on; with windows, that of chunks too. */
function sizesKey({ strategy, model, rangeChunks }: PolicyContext): string {
  const { numChunks, chunkTokens, kvTileChunks, prefetchDepth, headGroups, hiddenGradients } = strategy;
  return JSON.stringify([
    numChunks,
    Math.min(rangeChunks, numChunks),
    kvTileChunks,
    prefetchDepth,
    headGroups === undefined ? 1 : [headGroups, hiddenGradients],
    hasWindows(model) ? chunkTokens : 0,
  ]);
}

/** All that the ops of a section hang on: gradients are backward's alone. */
function keysOf(context: PolicyContext, program: StepProgram): (section: SectionToWrite) => string {
  const ends = endsKey(context, program);
  const sizes = sizesKey(context);
  return ({ name, layer }) => {
    if (layer === undefined) return `${name} ${ends}`;
    const { suffix, rebuilds: _, keyValueGradients, regionElements, ...forward } = layer;
    const kind = name.slice(0, name.length - suffix.length);
    const gradients = kind === 'layerBackward' ? [keyValueGradients, regionElements, context.strategy.hiddenGradients] : [];
    return `${kind} ${sizes} ${JSON.stringify([forward, gradients])}`;
  };
}

function shapeOf(
  setting: Setting,
  context: PolicyContext,
  program: StepProgram,
  called: ReadonlySet<string>,
  known: Map<string, SectionShape>,
): MemoryShape {
  const tensors = declareTensors(context);
  const keyOf = keysOf(context, program);
  const shapes = sectionWriters(context, program).flatMap((section): readonly SectionShape[] => {
    if (!called.has(section.name)) return [];
    const key = keyOf(section);
    const shape = known.get(key) ?? sectionShape(setting, context, section, tensors);
    known.set(key, shape);
    return [named(shape, section.name)];
  });
  const rings = ringsOf(shapes, context);
  const touched = new Set(shapes.flatMap(({ names }) => names));
  const names = [...tensors, ...rings].map(({ name }) => name).filter((name) => touched.has(name));
  return { names, rings, calls: callsOf(shapes, names), sections: shapes.map(({ shaped }) => shaped) };
}

function sectionShape(setting: Setting, context: PolicyContext, { write }: SectionToWrite, tensors: readonly Tensor[]): SectionShape {
  const { numChunks, chunkTokens, prefetchDepth } = context.strategy;
  const moved = moveData({ tensors, sections: [write()], turns: [], tables: [] }, context.places, prefetchDepth);
  const schedule = placeSchedule(moved, context, setting.machine, () => 0);
  const { size, cells } = conflictsOfCalls(schedule).matrix;
  const section = moved.sections[0] as LogicalSection;
  return {
    shaped: { ...oneOfEach(section, schedule.sections[0]?.ops ?? [], numChunks * chunkTokens), chunkTokens },
    rings: moved.tensors.slice(tensors.length),
    names: schedule.buffers.map(({ name }) => name),
    conflicts: [...cells.keys()].flatMap((cell): readonly (readonly [number, number])[] =>
      cells[cell] === 1 ? [[Math.floor(cell / size), cell % size]] : [],
    ),
  };
}

/** Layers of another class may run the same ops. */
function named(shape: SectionShape, name: string): SectionShape {
  const { section } = shape.shaped;
  return section.name === name ? shape : { ...shape, shaped: { ...shape.shaped, section: { ...section, name } } };
}

/** Each as long as the section needs that needs most; in the order in which they are staged, hop by hop. */
function ringsOf(shapes: readonly SectionShape[], { places }: PolicyContext): readonly Tensor[] {
  const rings = new Map<string, Tensor>();
  for (const ring of shapes.flatMap((shape) => shape.rings)) {
    const known = rings.get(ring.name);
    if (known === undefined || known.slots < ring.slots) rings.set(ring.name, ring);
  }
  const hops = ({ home }: Tensor): number => places.route(home).length;
  return [...rings.values()].sort((a, b) => hops(a) - hops(b));
}

function callsOf(shapes: readonly SectionShape[], names: readonly string[]): CallConflicts {
  const ids = new Map(names.map((name, id) => [name, id]));
  const matrix = { size: names.length, cells: new Uint8Array(names.length ** 2) };
  const touched = new Map<string, readonly number[]>();
  for (const { shaped, names: own, conflicts } of shapes) {
    const ofOwn = own.map((name) => ids.get(name) as number);
    touched.set(shaped.section.name, ofOwn);
    for (const [a, b] of conflicts) matrix.cells[(ofOwn[a] as number) * matrix.size + (ofOwn[b] as number)] = 1;
  }
  return { matrix, touched };
}

function oneOfEach(section: LogicalSection, placed: readonly Op[], numTokens: number): Pick<ShapedSection, 'section' | 'streams'> {
  const known = new Map<string, { readonly op: LogicalOp; readonly stream: string }>();
  for (const [i, op] of section.ops.entries()) {
    // A section is known by its first op.
    if (i > 0 && !hasTemporaries(op.kind)) continue;
    const { stream = '' } = placed[i] ?? {};
    const key = needsOf(op, stream, numTokens);
    if (!known.has(key)) known.set(key, { op, stream });
  }
  const found = [...known.values()];
  return { section: { ...section, ops: found.map(({ op }) => op) }, streams: found.map(({ stream }) => stream) };
}

/** What the temporaries of an op hang on, its tiles apart. */
function needsOf({ kind, tokens, kv, attribute, reads, writes, accumulates }: LogicalOp, stream: string, numTokens: number): string {
  const views = [reads, writes, accumulates].map((refs) => refs.map(lengthOf).join()).join(';');
  const isLast = kv?.start === 0 && tokens.end === numTokens;
  const behind = attribute?.mask?.kind === 'window' && kv !== undefined ? tokens.end - kv.end : undefined;
  return `${kind} ${stream} ${tokens.end - tokens.start} ${kv === undefined ? '' : kv.end - kv.start} ${isLast} ${behind} ${views}`;
}

function lengthOf({ tensor, chunks, rows = NO_ROWS }: TensorRef): string {
  return `${tensor}:${chunks.end - chunks.start}:${rows.end - rows.start}`;
}

const NO_ROWS: Range = { start: 0, end: 0 };
