/** Two programs in one schedule: passes, verifier and simulator see each as a schedule of its own. */
import { OP_ROWS } from '../catalog/ops/index.js';
import type { Buffer } from './buffer.js';
import type { Access, Op, Section } from './op.js';
import type { Program } from './program.js';
import type { Schedule } from './schedule.js';

/** What names of an evaluation's buffers end with: training has buffers of the same names. */
const BUFFER_SUFFIX = '.evaluate';

/** `evaluation`: a schedule whose only program is the one that evaluates. An arena is as large as the larger one. */
export function withEvaluation(training: Schedule, evaluation: Schedule): Schedule {
  const numBuffers = training.buffers.length;
  const attributes = [...training.attributes];
  const attributeNumbers = evaluation.attributes.map((attribute) => {
    const text = JSON.stringify(attribute);
    const known = attributes.findIndex((one) => JSON.stringify(one) === text);
    return known >= 0 ? known : attributes.push(attribute) - 1;
  });
  const shift = accessShift(numBuffers);
  const toOp = (op: Op): Op => ({
    ...op,
    ...(op.attribute === undefined ? {} : { attribute: attributeNumbers[op.attribute] as number }),
    reads: op.reads.map(shift),
    writes: op.writes.map(shift),
    accumulates: op.accumulates.map(shift),
  });
  // What ZeRO does to weights is the same in both.
  const own = evaluation.sections.filter((section) => !isExternal(section) || training.sections.every(({ name }) => name !== section.name));
  return {
    ...training,
    pools: training.pools.map((pool) => ({ ...pool, bytes: Math.max(pool.bytes, bytesOf(evaluation, pool.name)) })),
    buffers: [...training.buffers, ...evaluation.buffers.map((buffer): Buffer => moved(buffer, numBuffers))],
    attributes,
    sections: [...training.sections, ...own.map((section) => ({ ...section, ops: section.ops.map(toOp) }))],
    programs: { train: training.programs.train, evaluate: evaluation.programs.train },
  };
}

/** The schedule of training alone. */
export function trainingOf<S extends Schedule>(schedule: S): S {
  return schedule.programs.evaluate === undefined ? schedule : programAlone(schedule, schedule.programs.train);
}

/** The program that evaluates, in the place of the one that trains, and its tables; undefined where there is none. */
export function evaluationOf<S extends Schedule>(schedule: S): S | undefined {
  const { programs, tables, buffers } = schedule;
  if (programs.evaluate === undefined) return undefined;
  const ids = new Map(buffers.map(({ name, id }) => [name, id]));
  const own = tables.map((table) => ({ ...table, buffer: ids.get(`${buffers[table.buffer]?.name}${BUFFER_SUFFIX}`) ?? -1 }));
  return { ...programAlone(schedule, programs.evaluate), tables: own };
}

/** Whether a buffer is the evaluation's. */
export function isOfEvaluation({ name }: Pick<Buffer, 'name'>): boolean {
  return name.endsWith(BUFFER_SUFFIX);
}

/** Bytes of a pool's arena. */
export function bytesOf({ pools }: Pick<Schedule, 'pools'>, name: string): number {
  return pools.find((pool) => pool.name === name)?.bytes ?? 0;
}

function programAlone<S extends Schedule>(schedule: S, program: Program): S {
  const called = new Set(program.turns.flatMap(({ calls }) => calls.map(({ section }) => section)));
  return { ...schedule, sections: schedule.sections.filter(({ name }) => called.has(name)), programs: { train: program } };
}

/** A long section has few accesses that its many ops share, and goes on sharing them. */
function accessShift(numBuffers: number): (access: Access) => Access {
  const known = new Map<Access, Access>();
  return (access) => {
    const found = known.get(access) ?? { ...access, buffer: access.buffer + numBuffers };
    known.set(access, found);
    return found;
  };
}

function moved(buffer: Buffer, numBuffers: number): Buffer {
  return { ...buffer, id: buffer.id + numBuffers, name: `${buffer.name}${BUFFER_SUFFIX}` };
}

function isExternal({ ops }: Section): boolean {
  return ops.every(({ kind }) => OP_ROWS[kind].external);
}
