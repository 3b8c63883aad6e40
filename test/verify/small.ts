/**
 * A small plan in the text form, legal as it stands: three layers in segments of two and one, two chunks, hidden states on the host,
 * attention outputs on disk two hops away, an input rebuilt where the last layer's output lay, partial attention with a merge. Waits
 * and entry masks are those of the passes.
 */
import { withEntryWaits } from '../../src/address/entryWaits.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Access, Attribute, Op, Section } from '../../src/schedule/op.js';
import { addWaits } from '../../src/schedule/passes/addWaits.js';
import { programFromText } from '../../src/schedule/programText.js';
import type { Call, Turn } from '../../src/schedule/program.js';
import { opToText, sectionFromText, sectionToText } from '../../src/schedule/text.js';
import { DTYPE_BYTES, type Dtype } from '../../src/spec/dtype.js';
import type { VerifyInput } from '../../src/verify/verify.js';

export const PARAMETERS = { numPreElements: 3, numLayerElements: 5, numHeadNormElements: 1, numHeadElements: 3, numEmbedElements: 4 };

const STREAMS = ['compute', 'comm', 'h2d', 'd2h', 'read', 'write'] as const;
const LINKS = [
  { from: 'host', to: 'hbm', stream: 'h2d' },
  { from: 'hbm', to: 'host', stream: 'd2h' },
  { from: 'disk', to: 'host', stream: 'read' },
  { from: 'host', to: 'disk', stream: 'write' },
];
const ATTRIBUTES: readonly Attribute[] = [
  { mask: { kind: 'causal' } },
  { mask: { kind: 'full' } },
  { mask: { kind: 'window', window: 3 } },
  { tiles: 2 },
];

type Declared = readonly [name: string, dtype: Dtype, shape: readonly number[], more?: Partial<Buffer>];

const STEP = { scope: 'step' } as const;
const HEAD = [8, 1, 2];
const BUFFERS: readonly Declared[] = [
  ['tokenIds', 'int64', [8], STEP],
  ['positions', 'int64', [8], STEP],
  ['labels', 'int64', [8], STEP],
  ['lossSum', 'float32', [1], STEP],
  ['dx', 'float32', [8, 2], STEP],
  ['wgradHead', 'float32', [3], STEP],
  ['wgradEmbed', 'float32', [4]],
  ['wgradLayer', 'float32', [5]],
  ['x.hbm', 'float32', [8, 2]],
  ['y.hbm', 'float32', [8, 2]],
  ...['qLocal', 'kLocal', 'vLocal', 'oLocal', 'doLocal', 'dqLocal', 'dkLocal', 'dvLocal'].map((name): Declared => [name, 'float32', HEAD]),
  ...['q', 'k', 'v', 'do', 'dq', 'dk', 'dv', 'oPart', 'oAcc', 'o.hbm'].map((name): Declared => [name, 'float32', HEAD]),
  ...['lsePart', 'lseAcc', 'lse.hbm'].map((name): Declared => [name, 'float32', [8, 1]]),
  ['x@host', 'float32', [8, 2], { pool: 'host', instances: 3, scope: 'step' }],
  ['o.host', 'float32', HEAD, { pool: 'host' }],
  ['lse.host', 'float32', [8, 1], { pool: 'host' }],
  ['o.saved', 'float32', [4, 1, 2], { pool: 'disk', instances: 6, scope: 'step' }],
  ['lse.saved', 'float32', [4, 1], { pool: 'disk', instances: 6, scope: 'step' }],
];

/** Every buffer at an address of its own. */
function placed(declared: readonly Declared[]): { readonly buffers: readonly Buffer[]; readonly ends: ReadonlyMap<string, number> } {
  const ends = new Map<string, number>();
  const buffers = declared.map(([name, dtype, shape, more = {}], id): Buffer => {
    const { pool = 'hbm', instances = 1 } = more;
    const alignment = pool === 'disk' ? 4096 : 8;
    const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
    const instanceBytes = Math.ceil(bytes / alignment) * alignment;
    const offset = ends.get(pool) ?? 0;
    ends.set(pool, offset + instances * instanceBytes);
    const strides = shape.map((_, dim) => shape.slice(dim + 1).reduce((product, size) => product * size, 1));
    return { id, name, pool, dtype, shape, strides, instances, instanceBytes, offset, scope: 'call', ...more };
  });
  return { buffers, ends };
}

const both = (text: (rows: string, chunk: number) => string, order = [0, 1]): string =>
  order.map((chunk) => text(`[${4 * chunk}:${4 * chunk + 4})`, chunk)).join('\n');

const SECTIONS = [
  `section embedForward(x: -> hidden+0)
   loadBatch t[0:8) w tokenIds[0:8) positions[0:8) labels[0:8)
   zero t[0:4) w lossSum[0:1)
   ${both(
     (c) => `embed t${c} r tokenIds${c} w y.hbm${c}
             copy:d2h t${c} r y.hbm${c} w x@host#x${c}`,
   )}`,
  `section layerForward(x: hidden+0 ->, y: -> hidden+1, saved: -> attentionOutput+0)
   ${both(
     (c, chunk) => `
     copy:h2d t${c} r x@host#x${c} w x.hbm${c}
     pre t${c} r x.hbm${c} positions${c} w qLocal${c} kLocal${c} vLocal${c}
     toHeads t${c} r qLocal${c} kLocal${c} vLocal${c} w q${c} k${c} v${c}
     ${
       chunk === 0
         ? 'attn t[0:4) kv[0:4) mask causal r q[0:4) k[0:4) v[0:4) w o.hbm[0:4) lse.hbm[0:4)'
         : `attn t[4:8) kv[4:8) mask causal r q[4:8) k[4:8) v[4:8) w oPart[0:4) lsePart[0:4)
            mergeFirst t[4:8) r oPart[0:4) lsePart[0:4) w oAcc[0:4) lseAcc[0:4)
            attn t[4:8) kv[0:4) mask full r q[4:8) k[0:4) v[0:4) w oPart[4:8) lsePart[4:8)
            merge t[4:8) r oPart[4:8) lsePart[4:8) a oAcc[0:4) lseAcc[0:4)
            cast t[4:8) r oAcc[0:4) lseAcc[0:4) w o.hbm[4:8) lse.hbm[4:8)`
     }
     copy:d2h t${c} r o.hbm${c} lse.hbm${c} w o.host${c} lse.host${c}
     copy:write t${c} r o.host${c} lse.host${c} w o.saved#saved+${chunk}[0:4) lse.saved#saved+${chunk}[0:4)
     toSequence t${c} r o.hbm${c} w oLocal${c}
     post t${c} tiles 2 r x.hbm${c} oLocal${c} w y.hbm${c}
     copy:d2h t${c} r y.hbm${c} w x@host#y${c}`,
   )}`,
  `section layerRebuild(x: hidden+0 ->, y: -> hidden+1, saved: attentionOutput+0 ->)
   ${both(
     (c, chunk) => `
     copy:read t${c} r o.saved#saved+${chunk}[0:4) w o.host${c}
     copy:h2d t${c} r o.host${c} w o.hbm${c}
     copy:h2d t${c} r x@host#x${c} w x.hbm${c}
     toSequence t${c} r o.hbm${c} w oLocal${c}
     post t${c} r x.hbm${c} oLocal${c} w y.hbm${c}
     copy:d2h t${c} r y.hbm${c} w x@host#y${c}`,
   )}`,
  `section lossForward(x: hidden+3 ->, dx: -> hiddenGradient+3)
   zero t[0:4) w wgradHead[0:3)
   ${both(
     (c) => `copy:h2d t${c} r x@host#x${c} w x.hbm${c}
             loss t${c} r x.hbm${c} labels${c} w dx#dx${c} a lossSum[0:1) wgradHead[0:1) wgradHead[1:3)`,
   )}`,
  `section lossBackward(dx: hiddenGradient+3 -> hiddenGradient+3)
   rescale t[0:4) a wgradHead[0:3)
   ${both((c) => `rescale t${c} a dx#dx${c}`)}
   emitGrads t[0:4) r wgradHead[0:3)`,
  `section layerBackward(x: hidden+0 ->, dx: hiddenGradient+1 -> hiddenGradient+0, saved: attentionOutput+0 ->)
   zero t[0:4) w wgradLayer[0:5)
   ${both(
     (c) => `copy:h2d t${c} r x@host#x${c} w x.hbm${c}
             preKv t${c} r x.hbm${c} positions${c} w kLocal${c} vLocal${c}
             toHeads t${c} r kLocal${c} vLocal${c} w k${c} v${c}`,
   )}
   zero t[0:4) w dk[0:8) dv[0:8)
   ${both(
     (c, chunk) => `
     copy:read t${c} r o.saved#saved+${chunk}[0:4) lse.saved#saved+${chunk}[0:4) w o.host${c} lse.host${c}
     copy:h2d t${c} r o.host${c} lse.host${c} w o.hbm${c} lse.hbm${c}
     toSequence t${c} r o.hbm${c} w oLocal${c}
     postBwd t${c} r x.hbm${c} oLocal${c} w doLocal${c} a dx#dx${c} wgradLayer[3:5)
     preQ t${c} r x.hbm${c} positions${c} w qLocal${c}
     toHeads t${c} r doLocal${c} qLocal${c} w do${c} q${c}
     zero t${c} w dq${c}
     attnBwd t${c} kv[0:${4 * chunk + 4}) mask causal r q${c} k[0:${4 * chunk + 4}) v[0:${4 * chunk + 4}) o.hbm${c} lse.hbm${c} do${c} a dq${c} dk[0:${4 * chunk + 4}) dv[0:${4 * chunk + 4})
     toSequence t${c} r dq${c} dk${c} dv${c} w dqLocal${c} dkLocal${c} dvLocal${c}
     preBwd t${c} r x.hbm${c} positions${c} dqLocal${c} dkLocal${c} dvLocal${c} a dx#dx${c} wgradLayer[0:3)`,
     [1, 0],
   )}
   emitGrads t[0:4) r wgradLayer[0:5)`,
  `section embedBackward(dx: hiddenGradient+0 ->)
   zero t[0:4) w wgradEmbed[0:4)
   ${both((c) => `embedBwd t${c} r dx#dx${c} tokenIds${c} a wgradEmbed[0:4)`)}
   emitGrads t[0:4) r wgradEmbed[0:4)`,
  ...['gather', 'release', 'reduce', 'optimizerStep'].map((kind) => `section ${kind}()\n${kind} t[0:0)`),
];

const PROGRAM = `
embed forward: gather() by zero
embed forward: embedForward(x=0)
layer 0 forward: layerForward(x=0, y=2, saved=0) layer 0
layer 1 forward: layerForward(x=2, y=1, saved=2) layer 1
layer 2 forward: layerForward(x=1, y=2, saved=4) layer 2
head forward: lossForward(x=2, dx=0)
head backward: lossBackward(dx=0)
layer 2 backward: layerBackward(x=1, dx=0, saved=4) layer 2
layer 2 backward: reduce() layer 2 by zero
layer 1 backward: gather() layer 0
layer 1 backward: layerRebuild(x=0, y=2, saved=0) layer 0
layer 1 backward: release() layer 0
layer 1 backward: layerBackward(x=2, dx=0, saved=2) layer 1
layer 0 backward: layerBackward(x=0, dx=0, saved=0) layer 0
embed backward: embedBackward(dx=0)
end forward: optimizerStep() by zero`;

/** Ids are given by position, waits by the pass. */
function parseSection(text: string, buffers: readonly Buffer[]): Section {
  const lines = text.split('\n').flatMap((line) => (line.trim() === '' ? [] : [line.trim()]));
  const numbered = [lines[0], ...lines.slice(1).map((line, id) => `${id} ${line}`)].join('\n');
  const section = sectionFromText(numbered, { attributes: ATTRIBUTES, buffers });
  return { ...section, ops: addWaits(section.ops.map((op) => ({ ...op, waits: [] }))) };
}

export function smallPlan(): VerifyInput {
  return planOf(BUFFERS, SECTIONS);
}

/** lm_head is the embedding: its gradients are summed in the embedding's region from the loss on. */
export function tiedPlan(): VerifyInput {
  const buffers = BUFFERS.map((one): Declared => (one[0] === 'wgradEmbed' ? ['wgradEmbed', 'float32', [4], STEP] : one));
  const sections = SECTIONS.map((text) =>
    text
      .replace('zero t[0:4) w wgradEmbed[0:4)\n', '')
      .replace('zero t[0:4) w wgradHead[0:3)', 'zero t[0:4) w wgradHead[0:1) wgradEmbed[0:4)')
      .replaceAll('wgradHead[1:3)', 'wgradEmbed[0:4)')
      .replace('rescale t[0:4) a wgradHead[0:3)', 'rescale t[0:4) a wgradHead[0:1) wgradEmbed[0:4)')
      .replace('r wgradHead[0:3)', 'r wgradHead[0:1)'),
  );
  return { ...planOf(buffers, sections), parameters: { ...PARAMETERS, numHeadElements: 1 }, tied: true };
}

function planOf(declared: readonly Declared[], texts: readonly string[]): VerifyInput {
  const { buffers, ends } = placed(declared);
  const sections = texts.map((text) => parseSection(text, buffers));
  return withMasks({
    pools: (['hbm', 'host', 'disk'] as const).map((name, i) => ({
      name,
      kind: (['device', 'pinned', 'file'] as const)[i] ?? 'device',
      bytes: ends.get(name) ?? 0,
    })),
    links: LINKS,
    streams: STREAMS,
    buffers,
    attributes: ATTRIBUTES,
    tables: ['tokenIds', 'positions', 'labels'].map((name) => ({
      name,
      dtype: 'int64',
      capacity: 8,
      buffer: bufferNamed(buffers, name).id,
    })),
    sections,
    programs: { train: programFromText(PROGRAM, { streams: STREAMS, sections }) },
    numLayers: 3,
    parameters: PARAMETERS,
    tied: false,
  });
}

function bufferNamed(buffers: readonly Buffer[], name: string): Buffer {
  const found = buffers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no buffer is called ${name}`);
  return found;
}

/** Entry masks for the addresses that the plan has now. */
export function withMasks(plan: VerifyInput): VerifyInput {
  return { ...plan, programs: withEntryWaits(plan).programs };
}

export function withBuffer(plan: VerifyInput, name: string, more: Partial<Buffer>): VerifyInput {
  const { id } = bufferNamed(plan.buffers, name);
  return { ...plan, buffers: plan.buffers.map((one) => (one.id === id ? { ...one, ...more } : one)) };
}

export function withSection(plan: VerifyInput, name: string, change: (section: Section) => Section): VerifyInput {
  if (!plan.sections.some((section) => section.name === name)) throw new Error(`no section is called ${name}`);
  return { ...plan, sections: plan.sections.map((section) => (section.name === name ? change(section) : section)) };
}

/** Changes the nth op of a kind. */
export function withOp(plan: VerifyInput, name: string, kind: Op['kind'], change: (op: Op) => Op, nth = 0): VerifyInput {
  return withSection(plan, name, (section) => {
    const found = nthOp(section, kind, nth);
    return { ...section, ops: section.ops.map((op) => (op === found ? change(op) : op)) };
  });
}

function nthOp({ name, ops }: Section, kind: Op['kind'], nth: number): Op {
  const found = ops.filter((op) => op.kind === kind)[nth];
  if (found === undefined) throw new Error(`${name} has no ${kind} number ${nth}`);
  return found;
}

type AccessChange = Partial<Omit<Access, 'buffer'>> & { readonly buffer?: string };

/** Changes a view of the first op of a kind. */
export function withAccess(
  plan: VerifyInput,
  name: string,
  kind: Op['kind'],
  group: 'reads' | 'writes' | 'accumulates',
  position: number,
  { buffer, ...more }: AccessChange,
): VerifyInput {
  const id = buffer === undefined ? {} : { buffer: bufferNamed(plan.buffers, buffer).id };
  return withOp(plan, name, kind, (op) => ({
    ...op,
    [group]: op[group].map((one, i) => (i === position ? { ...one, ...more, ...id } : one)),
  }));
}

/** Rewrites the line of the nth op of a kind; ids and waits are found anew. `drop`: a kind whose first op goes. */
export function withLine(
  plan: VerifyInput,
  name: string,
  kind: Op['kind'],
  change: (line: string) => string,
  nth = 0,
  { drop }: { readonly drop?: Op['kind'] } = {},
): VerifyInput {
  return withSection(plan, name, (section) => {
    const found = nthOp(section, kind, nth);
    const dropped = drop === undefined ? undefined : nthOp(section, drop, 0);
    const lines = section.ops.flatMap((op) => {
      const line = opToText({ ...op, waits: [] }, section, plan).replace(/^\d+ /, '');
      return op === dropped ? [] : [op === found ? change(line) : line];
    });
    const head = sectionToText({ ...section, ops: [] }, plan);
    return parseSection([head, ...lines].join('\n'), plan.buffers);
  });
}

export function withoutOp(plan: VerifyInput, name: string, kind: Op['kind'], nth = 0): VerifyInput {
  return withLine(plan, name, kind, () => '', nth);
}

/** Changes the first call of a section. */
export function withCalls(plan: VerifyInput, section: string, change: (call: Call) => Call): VerifyInput {
  const found = plan.programs.train.turns.flatMap(({ calls }) => calls).find((call) => call.section === section && call.owner === 'plan');
  if (found === undefined) throw new Error(`no call of ${section}`);
  return withTurns(plan, (turns) =>
    turns.map((turn) => ({ ...turn, calls: turn.calls.map((call) => (call === found ? change(call) : call)) })),
  );
}

export function withTurns(plan: VerifyInput, change: (turns: readonly Turn[]) => readonly (Turn | undefined)[]): VerifyInput {
  return { ...plan, programs: { train: { turns: change(plan.programs.train.turns).filter((turn) => turn !== undefined) } } };
}
