/** What is known of one kind of op, all in one place: the worker's interface, its costs in memory and time, and how it is drawn. */
import type { OpSizes } from './sizes.js';
import type { AttributeShape, BufferShape, OpViews } from './views.js';

/** View names in the order the handler receives them; `many`: one or more. */
export type ViewNames = readonly string[] | 'many';

/** What runs an op: `link` is the stream of the link between the pools of its read and its write. */
export type OpStream = 'compute' | 'comm' | 'link';

/** Work of an op on one rank: FLOPs by the rate they run at, and bytes that pass through device memory beside those of its products. */
export interface OpWork {
  readonly matmulFlops: number;
  readonly attentionForwardFlops: number;
  readonly attentionBackwardFlops: number;
  /** Of weights, once for each product of them: what a product of few rows takes at least. */
  readonly weightBytes: number;
  /** Read and written by element-wise kernels. */
  readonly elementBytes: number;
  /** Kernels that run one after the other. */
  readonly kernels: number;
}

/** An op as a formula sees it. `rows` are those of its first read, or of one tile of them where it works in tiles. */
export interface OpFacts {
  readonly op: OpViews;
  readonly attribute: AttributeShape;
  readonly rows: number;
  readonly buffers: readonly BufferShape[];
  readonly sizes: OpSizes;
}

/** Chunk numbers as text, e.g. `2` or `0-1`. */
export interface DrawnChunks {
  readonly tokens: string;
  /** Attention ops only. */
  readonly kv: string;
  /** Copies only: what moves, e.g. `k3 v3`. */
  readonly moved: string;
}

type FlopsName = 'matmulFlops' | 'attentionForwardFlops' | 'attentionBackwardFlops';

interface Row {
  readonly stream: OpStream;
  readonly reads: ViewNames;
  /** Views that the op overwrites in full. */
  readonly writes: ViewNames;
  /** Views that the op adds to or multiplies, read-modify-write. */
  readonly accumulates: ViewNames;
  /** The i-th read goes to the i-th write. */
  readonly pairs: boolean;
  /** Done by ZeRO: placed and priced, but no handler of ours runs. */
  readonly external: boolean;
  /** Works through its rows in tiles where its attribute says so. */
  readonly tiled: boolean;
  /** Roughly: what the handler does. */
  readonly roughly: string;
  /** Peak bytes of the tensors made inside. */
  readonly temporaries: (facts: OpFacts) => number;
  /** FLOPs of the rows. */
  readonly flops: (facts: OpFacts) => Partial<Pick<OpWork, FlopsName>>;
  /** Of the weights of its products; left out where there are none. */
  readonly weightBytes?: (facts: OpFacts) => number;
  /** Read and written by element-wise kernels, on the rows. */
  readonly elementBytes: (facts: OpFacts) => number;
  /** Kernels that the rows take to launch. */
  readonly kernels: (facts: OpFacts) => number;
  readonly draw: (kind: string, chunks: DrawnChunks) => string;
}

/** Whether the same views give the same bits, on every device; if not, why. */
type Determinism = { readonly deterministic: true } | { readonly deterministic: false; readonly whyNot: string };

export type OpRow = Row & Determinism;

export const NO_FLOPS = (): Partial<Pick<OpWork, FlopsName>> => ({});
export const NONE = (): number => 0;
export const drawTokens = (kind: string, { tokens }: DrawnChunks): string => `${kind} ${tokens}`;
export const drawKind = (kind: string): string => kind;
