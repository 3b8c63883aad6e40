/**
 * Follows the values of a layer's sections by name: q, k, v of a chunk, and for outputs and gradients the (queries, keys) that they were
 * formed from. What must be whole where it is used is then compared, pair by pair, with what the model's mask says.
 */
import type { LogicalOp, LogicalSection, LogicalSchedule, TensorRef } from '../../src/schedule/logical.js';
import type { Mask, Range } from '../../src/schedule/op.js';

/** Queries that met keys in one op. */
export interface Part {
  readonly tokens: Range;
  readonly kv: Range;
  readonly mask: Mask;
}

type Value = string | readonly Part[];

/** A chunk's output, or its gradients, at the moment that an op takes it for final. */
export interface Final {
  readonly what: 'o' | 'dq' | 'dk' | 'dv';
  readonly chunk: number;
  readonly parts: readonly Part[];
}

export interface Followed {
  readonly finals: readonly Final[];
  /** Outputs that were saved, by tensor and chunk: what the next section begins with. */
  readonly values: ReadonlyMap<string, Value>;
}

/** Throws where an op uses what is not what it needs. */
export function follow(section: LogicalSection, { tensors }: LogicalSchedule, chunkTokens: number, before?: Followed): Followed {
  const saved = [...(before?.values ?? [])].filter(([place]) => place.includes('.saved'));
  const values = new Map<string, Value>(saved);
  const slots = new Map(tensors.map((tensor) => [tensor.name, tensor.slots]));
  const finals: Final[] = [];
  for (const op of section.ops) step(op);
  return { finals, values };

  function step(op: LogicalOp): void {
    const chunk = op.tokens.start / chunkTokens;
    const { kind, reads, writes, accumulates } = op;
    const part = { tokens: op.tokens, kv: op.kv ?? op.tokens, mask: op.attribute?.mask ?? { kind: 'full' } } as const;
    const keyChunks = range(part.kv.start / chunkTokens, part.kv.end / chunkTokens);
    switch (kind) {
      case 'pre':
      case 'preQ':
      case 'preKv':
        for (const ref of writes) set(ref, `${ref.tensor.replace('Local', '')}${chunk}`);
        return;
      case 'toHeads':
      case 'toSequence':
      case 'mergeFirst':
      case 'cast':
        for (const [n, ref] of reads.entries()) set(writes[n], get(ref));
        return;
      case 'zero':
        for (const ref of writes) for (const one of chunksOf(ref)) set(one, []);
        return;
      case 'attn':
        expectKeys(op, chunk, keyChunks);
        for (const ref of writes) set(ref, [part]);
        return;
      case 'merge':
        for (const [n, ref] of accumulates.entries()) set(ref, [...list(ref), ...list(reads[n])]);
        return;
      case 'post':
        note('o', chunk, reads[1]);
        return;
      case 'postBwd':
        note('o', chunk, reads[1]);
        set(writes[0], `do${chunk}`);
        return;
      case 'attnBwd':
        expectKeys(op, chunk, keyChunks);
        note('o', chunk, reads[3]);
        note('o', chunk, reads[4]);
        if (get(reads[5]) !== `do${chunk}`) throw new Error(`attnBwd ${chunk} reads ${JSON.stringify(get(reads[5]))} for do`);
        for (const ref of accumulates) for (const one of chunksOf(ref)) set(one, [...list(one), part]);
        return;
      case 'preBwd':
        for (const [n, what] of (['dq', 'dk', 'dv'] as const).entries()) note(what, chunk, reads[2 + n]);
        return;
      default:
    }
  }

  function expectKeys({ kind, reads }: LogicalOp, chunk: number, keyChunks: readonly number[]): void {
    const found = reads.slice(0, 3).map((ref) =>
      chunksOf(ref)
        .map((one) => JSON.stringify(get(one)))
        .join(),
    );
    const named = (name: string, chunks: readonly number[]): string => chunks.map((key) => JSON.stringify(`${name}${key}`)).join();
    const expected = [named('q', [chunk]), named('k', keyChunks), named('v', keyChunks)];
    if (found.join(' ') !== expected.join(' ')) throw new Error(`${kind} ${chunk} reads ${found.join(' ')}, not ${expected.join(' ')}`);
  }

  function note(what: Final['what'], chunk: number, ref: TensorRef | undefined): void {
    finals.push({ what, chunk, parts: list(ref) });
  }

  function placeOf({ tensor, chunks }: TensorRef): string {
    return `${tensor}/${chunks.start % (slots.get(tensor) ?? 1)}`;
  }

  function get(ref: TensorRef | undefined): Value {
    const value = ref === undefined ? undefined : values.get(placeOf(ref));
    if (value === undefined) throw new Error(`nothing wrote ${ref?.tensor} ${ref?.chunks.start}`);
    return value;
  }

  function list(ref: TensorRef | undefined): readonly Part[] {
    const value = get(ref);
    if (typeof value === 'string') throw new Error(`${value} is no result`);
    return value;
  }

  function set(ref: TensorRef | undefined, value: Value): void {
    if (ref !== undefined) values.set(placeOf(ref), value);
  }
}

function chunksOf(ref: TensorRef): readonly TensorRef[] {
  return range(ref.chunks.start, ref.chunks.end).map((start) => ({ ...ref, chunks: { start, end: start + 1 } }));
}

function range(start: number, end: number): readonly number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

/** Whether one op's mask lets a query see a key; positions are global. */
export function sees({ tokens, kv, mask }: Part, query: number, key: number): boolean {
  if (query < tokens.start || query >= tokens.end || key < kv.start || key >= kv.end) return false;
  if (mask.kind === 'full') return true;
  if (mask.kind === 'causal') {
    if (kv.end !== tokens.end) throw new Error('a causal mask whose ranges do not end together');
    return key <= query;
  }
  return key <= query && query - key < mask.window;
}
