/**
 * What of a small program does not hang on the size of its chunks: which ops there are, how many slots rings have, and which buffers are
 * alive together. A search asks for the memory of hundreds of strategies that have a few dozen such shapes.
 */
import { type CallConflicts, conflictsOfCalls } from '../address/lifetimes.js';
import { movedSchedule, placeSchedule } from '../schedule/build.js';
import { hasTemporaries } from '../catalog/ops/index.js';
import type { LogicalOp, LogicalSection, Tensor, TensorRef } from '../schedule/logical.js';
import type { Op, Range } from '../schedule/op.js';
import { declareTensors, layerPlan, type PolicyContext, type StepProgram } from '../schedule/policies/index.js';
import { perSetting } from './perSetting.js';
import type { Setting } from './setting.js';

export interface MemoryShape {
  /** Of the program that the shape is of, in tokens. */
  readonly chunkTokens: number;
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
}

const knownShapes = perSetting<MemoryShape>();

/** Of the program of a few chunks that `context` describes, whose calls are those of `program`. */
export function memoryShape(setting: Setting, context: PolicyContext, program: StepProgram): MemoryShape {
  const known = knownShapes(setting);
  const key = keyOf(context, program);
  const shape = known.get(key) ?? shapeOf(setting, context);
  known.set(key, shape);
  return shape;
}

/** All that the ops of a program hang on; with windows, on the size of chunks too. */
function keyOf(context: PolicyContext, { turns, relocations }: StepProgram): string {
  const { strategy, model, rangeChunks } = context;
  const { numChunks, chunkTokens, kvTileChunks, prefetchDepth, hiddenGradients, layers } = strategy;
  const hasWindows = model.windows.some((window) => window !== null);
  return JSON.stringify([
    [numChunks, Math.min(rangeChunks, numChunks), kvTileChunks, prefetchDepth, hiddenGradients, hasWindows ? chunkTokens : 0],
    [layers[0]?.checkpoints, layers.at(-1)?.checkpoints],
    layerPlan(context).classes,
    relocations,
    [...new Set(turns.flatMap(({ calls }) => calls.map(({ section }) => section)))],
  ]);
}

function shapeOf(setting: Setting, context: PolicyContext): MemoryShape {
  const { numChunks, chunkTokens } = context.strategy;
  const moved = movedSchedule(context);
  const schedule = placeSchedule(moved, context, setting.machine, () => 0);
  const declared = new Set(declareTensors(context).map(({ name }) => name));
  return {
    chunkTokens,
    names: schedule.buffers.map(({ name }) => name),
    rings: moved.tensors.filter(({ name }) => !declared.has(name)),
    calls: conflictsOfCalls(schedule),
    sections: moved.sections.map((section, i) => oneOfEach(section, schedule.sections[i]?.ops ?? [], numChunks * chunkTokens)),
  };
}

function oneOfEach(section: LogicalSection, placed: readonly Op[], numTokens: number): ShapedSection {
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
