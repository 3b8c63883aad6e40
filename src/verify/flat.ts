/**
 * A section as columns: its ops name views by number, and each distinct view is kept once. A long section has hundreds of thousands of
 * ops, whose views repeat; everything that is true of a view is found out once.
 */
import { completionClocks, type OpOrder, orderOf } from '../address/clocks.js';
import type { Access, Op, Section } from '../schedule/op.js';
import type { Context } from './context.js';
import { gradientViews } from './regions.js';
import { ViewTable } from './viewTable.js';

export interface FlatSection extends OpOrder {
  readonly section: Section;
  readonly numOps: number;
  readonly clocks: () => Int32Array;
  /** By op where its reads, its writes and its accumulates begin in `opViews`; the next op's reads end them. */
  readonly firstRead: Int32Array;
  readonly firstWrite: Int32Array;
  readonly firstAccumulate: Int32Array;
  /** Numbers of views. */
  readonly opViews: Int32Array;
  readonly views: ViewTable;
  readonly firstOfKind: ReadonlyMap<string, Op>;
  /** Ops that hand over weight gradients. */
  readonly emissions: readonly Op[];
  /** Of ops that add gradients of a layer's weights one for each range of elements. */
  readonly layerAdditions: readonly Op[];
}

export function flatten(section: Section, { input }: Context): FlatSection {
  const { ops } = section;
  const firstRead = new Int32Array(ops.length + 1);
  const firstWrite = new Int32Array(ops.length);
  const firstAccumulate = new Int32Array(ops.length);
  const opViews = new Int32Array(countViews(ops));
  const views = new ViewTable();
  const firstOfKind = new Map<string, Op>();
  let next = 0;
  const intern = (accesses: readonly Access[], op: number): void => {
    for (let i = 0; i < accesses.length; i++) opViews[next++] = views.numberOf(accesses[i] as Access, op);
  };
  for (let id = 0; id < ops.length; id++) {
    const op = ops[id] as Op;
    const { reads, writes, accumulates, kind } = op;
    if (!firstOfKind.has(kind)) firstOfKind.set(kind, op);
    firstRead[id] = next;
    intern(reads, id);
    firstWrite[id] = next;
    intern(writes, id);
    firstAccumulate[id] = next;
    intern(accumulates, id);
  }
  firstRead[ops.length] = next;
  const order = orderOf(ops, input.streams);
  let clocks: Int32Array | undefined;
  return {
    section,
    numOps: ops.length,
    ...order,
    // Waits are followed only once they are known to be in order.
    clocks: () => {
      clocks ??= completionClocks(order, input.streams.length);
      return clocks;
    },
    firstRead,
    firstWrite,
    firstAccumulate,
    opViews,
    views,
    firstOfKind,
    emissions: firstOfKind.has('emitGrads') ? ops.filter(({ kind }) => kind === 'emitGrads') : [],
    layerAdditions: LAYER_ADDITIONS.some((kind) => firstOfKind.has(kind)) ? layerAdditions(ops) : [],
  };
}

const LAYER_ADDITIONS: readonly string[] = ['postBwd', 'postBwdKept', 'preBwd'];

function layerAdditions(ops: readonly Op[]): readonly Op[] {
  const byRange = new Map<string, Op>();
  for (const op of ops) {
    if (!LAYER_ADDITIONS.includes(op.kind)) continue;
    const [region] = gradientViews(op);
    const key = `${region?.rows.start}/${region?.rows.end}`;
    if (!byRange.has(key)) byRange.set(key, op);
  }
  return [...byRange.values()];
}

function countViews(ops: readonly Op[]): number {
  let count = 0;
  for (const { reads, writes, accumulates } of ops) count += reads.length + writes.length + accumulates.length;
  return count;
}
