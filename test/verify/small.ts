/**
 * A small plan in the text form, legal as it stands: three layers in segments of two and one, two chunks, hidden states on the host,
 * attention outputs on disk two hops away, an input rebuilt where the last layer's output lay, partial attention with a merge. Waits
 * and entry masks are those of the passes.
 */
import { withEntryWaits } from '../../src/address/entryWaits.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Attribute, Section } from '../../src/schedule/op.js';
import { addWaits } from '../../src/schedule/passes/addWaits.js';
import { programFromText } from '../../src/schedule/programText.js';
import { sectionFromText } from '../../src/schedule/text.js';
import { DTYPE_BYTES } from '../../src/spec/dtype.js';
import type { VerifyInput } from '../../src/verify/verify.js';
import { BUFFERS, type Declared, PROGRAM, SECTIONS, STEP } from './smallText.js';

const PARAMETERS = {
  layers: [{ numElements: 5 }],
  numHeadNormElements: 1,
  numHeadElements: 3,
  embed: [{ trainable: true }],
  numEmbedElements: 4,
};

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
    classOf: [0, 0, 0],
    tied: false,
  });
}

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

/** Ids are given by position, waits by the pass. */
export function parseSection(text: string, buffers: readonly Buffer[]): Section {
  const lines = text.split('\n').flatMap((line) => (line.trim() === '' ? [] : [line.trim()]));
  const numbered = [lines[0], ...lines.slice(1).map((line, id) => `${id} ${line}`)].join('\n');
  const section = sectionFromText(numbered, { attributes: ATTRIBUTES, buffers });
  return { ...section, ops: addWaits(section.ops.map((op) => ({ ...op, waits: [] }))) };
}

/** Entry masks for the addresses that the plan has now. */
export function withMasks(plan: VerifyInput): VerifyInput {
  return { ...plan, programs: withEntryWaits(plan).programs };
}

export function bufferNamed(buffers: readonly Buffer[], name: string): Buffer {
  const found = buffers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no buffer is called ${name}`);
  return found;
}
