/** The specs a plan is made from, and the parameter table derived from the model. All are readonly JSON-safe data. */
import type { ModelDtype } from './dtype.js';
import type { KernelChoices } from './kernelChoices.js';
import type { ModelCode } from './modelCode.js';
import type { ForcedPlaces, PolicyName } from './strategy.js';

export type { PolicyName } from './strategy.js';

/** A model as the planner sees it, translated from a Hugging Face config.json by one catalog entry. */
export interface ModelSpec {
  readonly kind: 'model';
  /** Its file in the catalog, e.g. `llama`. */
  readonly family: string;
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly tieWordEmbeddings: boolean;
  /** Per layer the tokens a query sees, itself included, or null where it sees all before it. */
  readonly windows: readonly (number | null)[];
  /** What its layers and ends compute; the worker runs it on the modules of the Hugging Face model. */
  readonly code: ModelCode;
  /** The Hugging Face config as given; the worker builds the model from it. */
  readonly hfConfig: Readonly<Record<string, unknown>>;
  /** What peft makes adapters by, as its own LoraConfig has it; absent without. */
  readonly lora?: Readonly<Record<string, unknown>>;
}

/** What an attention kernel reaches on long rows. */
export interface AttentionRate {
  readonly kernel: string;
  readonly headDim: number;
  readonly forwardFlops: number;
  readonly backwardFlops: number;
  /**
   * Of rates that were measured, on the whole op: its launches, and what it reads and writes beside the kernel, are in them. Keys that
   * a query under a mask costs beside those it sees, since tiles that the mask cuts are formed whole; in place of `attentionHalfKeys`.
   */
  readonly measured?: { readonly forwardMaskKeys: number; readonly backwardMaskKeys: number } | undefined;
}

/**
 * A measured kernel, by the name of an instruction of a model's code or of an op kind, and by its shape: rows, and work on each of
 * them. Work is FLOPs where there are any, else bytes; all that the kernel reads, writes and launches is in its rate.
 */
export interface KernelRate {
  readonly kernel: string;
  readonly rows: number;
  readonly workPerRow: number;
  readonly workPerSecond: number;
}

/** Achieved rates of one rank; see catalog for sources. FLOP/s, bytes/s, seconds. */
export interface Rates {
  readonly matmulFlops: number;
  /** Of kernels that `attentionKernels` has no row of. */
  readonly attentionForwardFlops: number;
  readonly attentionBackwardFlops: number;
  /** By kernel and head dim; a head dim between two of a kernel runs at the rate of the smaller. */
  readonly attentionKernels: readonly AttentionRate[];
  /** Keys that a query sees, on the mean, at which attention has half of its rate. */
  readonly attentionHalfKeys: number;
  /** Of kernels that were measured; the others run at `matmulFlops` and `memoryBytes`. */
  readonly kernelRates: readonly KernelRate[];
  /** Bytes that element-wise kernels read plus write a second. */
  readonly memoryBytes: number;
  readonly h2dBytes: number;
  readonly d2hBytes: number;
  /** Sum of both directions when the link is shared; 0 when it is full duplex. */
  readonly duplexBytes: number;
  /** Bytes a rank sends per second in an all-to-all inside a node; in a gather; in a reduce-scatter. */
  readonly commBytes: number;
  readonly gatherBytes: number;
  readonly reduceBytes: number;
  readonly commLatencySeconds: number;
  /** How long a rank waits for the slowest: in the first exchange of a section longer by; in each that follows work; and for how much of that work. */
  readonly turnWaitSeconds: number;
  readonly rankWaitSeconds: number;
  readonly rankSkew: number;
  /** The same between nodes, of each rank while all of a node send. */
  readonly interNodeBytes: number;
  readonly interNodeLatencySeconds: number;
  /** Fixed cost of one kernel, or of one copy, on its stream. */
  readonly launchSeconds: number;
  /** Optimizer seconds per owned parameter: on the device, and on the host's CPUs while all ranks of a node use them. */
  readonly optimizerSecondsPerParameter: number;
  readonly offloadedOptimizerSecondsPerParameter: number;
  /** Fixed seconds of an optimizer step; and of what ZeRO does by itself in each of its calls, beside what crosses links. */
  readonly optimizerStepSeconds: number;
  readonly zeroGatherSeconds: number;
  readonly zeroReleaseSeconds: number;
  readonly zeroReduceSeconds: number;
  /** Fixed seconds outside the ops, of one DeepSpeed step and of each turn: hooks, bookkeeping, host work. */
  readonly stepOverheadSeconds: number;
  readonly turnOverheadSeconds: number;
  /** Seconds that the host takes to issue an op, and for each kernel that it launches; on the CPU device `launchSeconds` is the latter. */
  readonly hostSecondsPerOp: number;
  readonly hostSecondsPerKernel: number;
  /** Between pinned memory and a file; 0 where there is none. */
  readonly diskReadBytes: number;
  readonly diskWriteBytes: number;
}

/** How a number of a plan was come by. */
export type Provenance = 'exact' | 'derived' | 'measured' | 'assumed';

/** How a rate was come by: measured on this machine, published by somebody for this device, or assumed. */
export type RateOrigin = 'measured' | 'published' | 'assumed';
export type RateOrigins = Readonly<Partial<Record<keyof Rates, RateOrigin>>>;

export interface ClusterSpec {
  readonly kind: 'cluster';
  readonly name: string;
  readonly device: 'cpu' | 'cuda';
  /** Of its GPUs, as compilers call it: sm90 for compute capability 9.0. Absent: not known. */
  readonly architecture?: string | undefined;
  /** Attention kernels whose packages the workers' environment has beside PyTorch's own. Absent: none. */
  readonly installedKernels?: readonly string[] | undefined;
  /** Whether DeepSpeed trains in fp16 here. Absent: GPUs do, CPUs do not; one with fp16 arithmetic in oneDNN may say true. */
  readonly float16?: boolean | undefined;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** Usable device memory per rank. */
  readonly hbmBytes: number;
  /** Usable pinned host memory per rank. */
  readonly hostBytes: number;
  /** Bytes of a rank's file on a local disk; 0 where there is none. */
  readonly diskBytes: number;
  /** Memory that is gone before the first tensor: context, communicators. Named, with provenance. */
  readonly overheads: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly provenance: Provenance;
    readonly source: string;
  }[];
  readonly rates: Rates;
  readonly ratesProvenance: Provenance;
  /** How single rates were come by. Absent: all as `ratesProvenance` says. */
  readonly rateOrigins?: RateOrigins | undefined;
  readonly ratesSource: string;
  /** Peak dense FLOP/s of the device in the model dtype, for MFU. */
  readonly peakFlops: number;
}

/** What to run. Everything here is resolved: defaults filled, `auto` values still to be chosen by the solver are absent. */
export interface RunSpec {
  readonly kind: 'run';
  readonly seqLen: number;
  /** seqLen rounded up so that every chunk divides over the ranks, into whole tiles of rows; the rest is padded and masked. */
  readonly paddedSeqLen: number;
  /** What the rows that a rank has of a chunk are a multiple of. */
  readonly rowTile: number;
  readonly sequenceParallelSize: number;
  readonly dataParallelSize: number;
  readonly policy: PolicyName;
  /** Absent, like the other counts below: the solver chooses. */
  readonly numChunks?: number;
  /** Layers of a segment where the strategy names none; the last segment may be shorter. */
  readonly segmentLayers?: number;
  readonly kvTileChunks?: number;
  readonly numLossTiles?: number;
  readonly numTokenTiles?: number;
  readonly prefetchDepth: number;
  readonly headGroups?: number;
  /** Share of the device's memory that a plan leaves free, from 0 up to 1. */
  readonly hbmReserve: number;
  /** Places and orders that the user fixed. */
  readonly strategy?: ForcedPlaces;
  /** The attention kernel that the user asked for. */
  readonly attention?: string;
  /** Kernels beside attention that the user asked for, by kind. */
  readonly kernels?: KernelChoices;
  readonly dtype: ModelDtype;
  readonly zeroStage: 0 | 1 | 2 | 3;
  readonly gradientAccumulationSteps: number;
  /** Static loss scale of the engine, 1 when none, and in float16, where DeepSpeed keeps the scale. */
  readonly lossScale: number;
  readonly numSteps: number;
  readonly seed: number;
  /** Batches may have several documents in a sequence, and weights of the loss. */
  readonly packing?: true;
  /** The plan has a program that evaluates; absent: it has none. */
  readonly evaluate?: boolean;
}

/** A ds_config as DeepSpeed gets it: strict, `auto` values resolved. */
export type DeepSpeedConfig = Readonly<Record<string, unknown>>;

/** One weight of a group, with its place in the group's flat fp32 gradient region. Offsets and sizes in elements. */
export interface ParameterView {
  /** Hugging Face name relative to the group's module, e.g. `self_attn.q_proj.weight`. */
  readonly name: string;
  readonly shape: readonly number[];
  /** 0 where it does not train: it has no place. */
  readonly offset: number;
  readonly numel: number;
  readonly trainable: boolean;
}

/** Weights of a decoder layer, their names relative to its module. */
export interface LayerParameters {
  readonly weights: readonly ParameterView[];
  /** Of its gradient region. */
  readonly numElements: number;
}

/**
 * Weights by group, in the order of use. `layers` are decoder layers by their class of code. `head` is the final norm, up to
 * `numHeadNormElements` of the region, and lm_head (full names); of a tied model the norm alone, since lm_head's gradient is added to the
 * region of `embed`, the embedding. Regions hold what trains; one for which nothing does has an element that nothing adds to.
 */
export interface ParameterTable {
  readonly layers: readonly LayerParameters[];
  readonly head: readonly ParameterView[];
  readonly numHeadNormElements: number;
  readonly embed: readonly ParameterView[];
  readonly numHeadElements: number;
  readonly numEmbedElements: number;
  /** Parameters of the whole model, a tied weight counted once, and those of them that train. */
  readonly numModelParameters: number;
  readonly numTrainedParameters: number;
}
