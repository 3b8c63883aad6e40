/** What a decoder layer computes and keeps, by its parts, from the model's compiled code: a row is a token. */
import { CodeCosts } from '../../catalog/ops/codeCosts.js';
import { type CodeWork, workOf } from '../../catalog/model/liveness.js';
import { PRIMITIVES } from '../../catalog/model/primitives.js';
import type { Code, Instruction, LayerCode, ModelCode, PrimitiveName } from '../../spec/modelCode.js';

/** Of a row, the mean over the layers; FLOPs of all products forward, elements of all weights that they read. */
export interface Part {
  readonly flops: number;
  readonly weightElements: number;
}

export interface LayerShape {
  /** Projections to q, k, v; of attention's output; the MLP, and of that all products but its last. */
  readonly input: Part;
  readonly output: Part;
  readonly mlp: Part;
  readonly mlpFirst: Part;
  /** Elements of a row that autograd keeps inside the MLP, its input not; with activation and product as one kernel, fewer. */
  readonly mlpKept: number;
  readonly mlpKeptFused: number;
  /** Elements of a row of the widest value in it. */
  readonly mlpWidth: number;
  /** Of a layer as Hugging Face's modules run it kernel by kernel: bytes of a row, and kernels, forward and backward without recompute. */
  readonly eager: {
    readonly forwardBytes: number;
    readonly backwardBytes: number;
    readonly forwardKernels: number;
    readonly backwardKernels: number;
  };
}

/** `rows`: of a rank, as which element-wise traffic is counted. `w`: bytes of the model dtype. */
export function layerShape(model: ModelCode, rows: number, w: number): LayerShape {
  const parts = model.classes.map((one) => partsOf(one, w));
  const share = (i: number): number => model.classOf.filter((kind) => kind === i).length / model.classOf.length;
  const mean = (of: (part: Parts) => CodeWork): Part => {
    const works = parts.map((part, i) => ({ work: of(part), share: share(i) }));
    return {
      flops: works.reduce((sum, { work, share: part }) => sum + part * work.matmulFlops, 0),
      weightElements: works.reduce((sum, { work, share: part }) => sum + (part * work.weightBytes) / w, 0),
    };
  };
  const most = (of: (part: Parts) => number): number => Math.max(...parts.map(of));
  return {
    input: mean(({ input }) => input),
    output: mean(({ output }) => output),
    mlp: mean(({ mlp }) => mlp),
    mlpFirst: mean(({ mlpFirst }) => mlpFirst),
    mlpKept: most(({ kept }) => kept),
    mlpKeptFused: most(({ keptFused }) => keptFused),
    mlpWidth: most(({ width }) => width),
    eager: eagerWork(new CodeCosts(model, { w, cuda: true }), rows),
  };
}

interface Parts {
  readonly input: CodeWork;
  readonly output: CodeWork;
  readonly mlp: CodeWork;
  readonly mlpFirst: CodeWork;
  readonly kept: number;
  readonly keptFused: number;
  readonly width: number;
}

function partsOf({ pre, post }: LayerCode, w: number): Parts {
  const work = (instructions: readonly Instruction[], { widths }: Code): CodeWork => workOf({ instructions, widths }, 1, { w });
  const inMlp = post.instructions.filter(isMlp);
  const products = inMlp.filter(({ op }) => op === 'linear');
  return {
    input: work(pre.instructions, pre),
    output: work(
      post.instructions.filter((one) => !isMlp(one)),
      post,
    ),
    mlp: work(inMlp, post),
    mlpFirst: work(products.slice(0, -1), post),
    kept: keptElements(inMlp, post, false),
    keptFused: keptElements(inMlp, post, true),
    width: Math.max(0, ...inMlp.flatMap(({ writes }) => writes).map((name) => post.widths[name] ?? 0)),
  };
}

/** Behind attention a layer has one product of its output; every other is the MLP's. */
function isMlp({ op, reads }: Instruction): boolean {
  return ['activation', 'multiply', 'slice'].includes(op) || (op === 'linear' && !reads.includes('@o'));
}

/** Values made inside that a reverse reads. A fused activation keeps its input alone: what it makes is formed again. */
function keptElements(instructions: readonly Instruction[], { widths }: Code, fused: boolean): number {
  const made = new Set(instructions.flatMap(({ writes }) => writes));
  const activated = new Set(instructions.filter(({ op }) => op === 'activation').flatMap(({ writes }) => writes));
  const factors = new Set(instructions.filter(({ op }) => op === 'multiply').flatMap(({ reads }) => reads));
  const kept = new Set(instructions.flatMap(savedValues).filter((name) => made.has(name)));
  return [...kept]
    .filter((name) => !(fused && activated.has(name) && factors.has(name)))
    .reduce((sum, name) => sum + (widths[name] ?? 0), 0);
}

function savedValues(one: Instruction): readonly string[] {
  const { backward } = PRIMITIVES[one.op as PrimitiveName];
  if (backward === undefined || backward === 'pass') return [];
  return backward.saved({ ...one, op: one.op as PrimitiveName, of: one.reads, to: one.writes[0] ?? '', width: 0 });
}

/** The compiled reverse forms again what it needs: what forward costs is taken off. */
function eagerWork(code: CodeCosts, rows: number): LayerShape['eager'] {
  const sum = (names: readonly ('pre' | 'post' | 'preBwd' | 'postBwd')[], field: 'elementBytes' | 'kernels'): number =>
    names.reduce((total, name) => total + code.work(name, rows)[field], 0);
  const [forward, backward] = [['pre', 'post'] as const, ['preBwd', 'postBwd'] as const];
  const forwardBytes = sum(forward, 'elementBytes') / rows;
  const forwardKernels = sum(forward, 'kernels');
  return {
    forwardBytes,
    backwardBytes: Math.max(0, sum(backward, 'elementBytes') / rows - forwardBytes),
    forwardKernels,
    backwardKernels: Math.max(0, sum(backward, 'kernels') - forwardKernels),
  };
}
