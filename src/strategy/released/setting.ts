/** A request for a released program: its specs, its switches with defaults, and the letters of its formulas. */
import { opSizes, type OpSizes } from '../../catalog/ops/index.js';
import { parameterTable } from '../../catalog/parameters.js';
import { parseSpecs, type SpecInput } from '../../catalog/specs.js';
import { FpdtError } from '../../spec/errors.js';
import { nearestKey } from '../../spec/nearestKey.js';
import { readDeepSpeed } from '../../spec/deepspeedFile.js';
import { askedOf, tellProblems } from '../../spec/deepspeedOurs.js';
import { isObject, type JsonObject } from '../../spec/parseJson.js';
import { sharesOrCopiesHeads } from '../../spec/parallelism.js';
import { type ParallelLayout, parallelLayout } from '../../spec/parallelLayout.js';
import { isPlanOnly, parseReleased, type PlanOnlyPolicy, type ReleasedOptions } from '../../spec/releasedPrograms.js';
import type { RunInput } from '../../spec/runInput.js';
import { withChunks } from '../../spec/sizes.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../../spec/types.js';
import { layerShape, type LayerShape } from './layerShape.js';

/** What a program is, beside its formulas. */
export interface ProgramFacts {
  /** Its switches as published; a switch that is absent it does not have. */
  readonly defaults: Partial<ReleasedOptions>;
  /** First of these that the device has a rate of. */
  readonly kernels: readonly string[];
  /** Whether it can have so many ranks share a sequence. */
  readonly takesRanks: (ranks: number, model: ModelSpec, ranksPerNode: number) => boolean;
  readonly headRule: string;
  /** What shards the model's states: ZeRO by the ds_config, or FSDP2 whatever it says. */
  readonly sharding: 'ZeRO' | 'FSDP2';
  readonly takesWindows: boolean;
}

/** Of programs whose all-to-alls give every rank whole heads. */
export const ULYSSES_HEADS = {
  takesRanks: sharesOrCopiesHeads,
  headRule: 'a divisor of the query heads that the key/value heads divide or are divided by',
} as const satisfies Partial<ProgramFacts>;

export interface ReleasedSetting {
  readonly policy: PlanOnlyPolicy;
  readonly options: ReleasedOptions;
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: DeepSpeedConfig;
  readonly parameters: ParameterTable;
  readonly layout: ParallelLayout;
  readonly sizes: OpSizes;
  readonly layer: LayerShape;
  readonly kernel: string;
  /** Tokens of a sequence, padding included, and of those a rank's. */
  readonly tokens: number;
  readonly rows: number;
}

const ALL_OFF: ReleasedOptions = {
  checkpoints: 'none',
  chunkedAttention: false,
  tiledLoss: false,
  tiledMlp: false,
  offloadWeights: false,
};

/** Of a run, for the policies that have a schedule. */
const NOT_THEIRS = [
  'numChunks',
  'segmentLayers',
  'kvTileChunks',
  'numLossTiles',
  'numTokenTiles',
  'prefetchDepth',
  'headGroups',
  'strategy',
  'freeze',
  'lora',
  'packing',
  'kernels',
] as const;

/** Reads files that the input names. Throws an FpdtError for what the program, or this model of it, does not have. */
export function releasedSetting(input: SpecInput, programs: Readonly<Record<PlanOnlyPolicy, ProgramFacts>>): ReleasedSetting {
  const { source, run: asked } = askedOf(readDeepSpeed(input.deepspeed), input.run);
  tellProblems(source);
  const { policy, released, ...run } = asked;
  if (!isPlanOnly(policy)) {
    throw new FpdtError(`${policy ?? 'auto'} is no plan-only policy`, { code: 'conflict', hint: 'plan it with planRun' });
  }
  refuseSchedules(asked, policy);
  const program = programs[policy];
  const { config, offloadWeights } = withoutWeights(source.config);
  const options = resolveOptions(policy, program, released, offloadWeights);
  const filled = { ...run, hbmReserve: run.hbmReserve ?? 0 };
  const first = parseSpecs({ ...input, deepspeed: config, run: filled });
  const specs = givesRanks(asked, config)
    ? first
    : parseSpecs({ ...input, deepspeed: config, run: { ...filled, ...ranksOf(program, first) } });
  checkRun(policy, program, specs);
  return assemble(policy, options, { ...specs, deepspeed: specs.deepspeed.config }, program);
}

/** The same request for another length of sequence. */
export function withTokens(setting: ReleasedSetting, seqLen: number): ReleasedSetting {
  const ranks = setting.run.sequenceParallelSize;
  const run = { ...setting.run, seqLen, paddedSeqLen: Math.ceil(seqLen / ranks) * ranks };
  return { ...setting, run, ...lengthsOf(run, setting) };
}

type Specs = Pick<ReleasedSetting, 'model' | 'cluster' | 'run' | 'deepspeed'>;

function assemble(policy: PlanOnlyPolicy, options: ReleasedOptions, specs: Specs, program: ProgramFacts): ReleasedSetting {
  const { model, cluster } = specs;
  // They pad to their ranks alone.
  const run = withChunks({ ...specs.run, rowTile: 1 }, specs.run.numChunks ?? 1);
  const parameters = parameterTable(model);
  const layout = parallelLayout(model, run, cluster.ranksPerNode);
  const kernel = kernelOf(run.attention, program, cluster);
  const sizes = opSizes({ model, run, parameters, layout, device: cluster.device, kernels: { attn: kernel, attnBwd: kernel } });
  return { policy, options, ...specs, run, parameters, layout, kernel, sizes, ...lengthsOf(run, { model, sizes }) };
}

function lengthsOf(
  run: RunSpec,
  { model, sizes }: Pick<ReleasedSetting, 'model' | 'sizes'>,
): Pick<ReleasedSetting, 'tokens' | 'rows' | 'layer'> {
  const rows = run.paddedSeqLen / run.sequenceParallelSize;
  return { tokens: run.paddedSeqLen, rows, layer: layerShape(model.code, rows, sizes.w) };
}

function refuseSchedules(run: RunInput, policy: PlanOnlyPolicy): void {
  const given = NOT_THEIRS.find((name) => run[name] !== undefined);
  if (given === undefined) return;
  throw new FpdtError(`run.${given} is given, which ${policy} does not have`, { code: 'conflict', hint: `leave run.${given} out` });
}

/** DeepSpeed's own switch for weights on the host, which plans that run refuse. */
function withoutWeights(config: JsonObject): { readonly config: JsonObject; readonly offloadWeights: boolean } {
  const zero = config['zero_optimization'];
  const offload = isObject(zero) ? zero['offload_param'] : undefined;
  if (isObject(offload) && offload['device'] === 'nvme') {
    throw new FpdtError('deepspeed.zero_optimization.offload_param.device: released programs are planned without weights on a disk', {
      code: 'unsupported',
      hint: "use device 'cpu' or 'none'",
    });
  }
  if (!isObject(zero) || !isObject(offload) || offload['device'] !== 'cpu') return { config, offloadWeights: false };
  const { offload_param: _, ...rest } = zero;
  return { config: { ...config, zero_optimization: rest }, offloadWeights: true };
}

function resolveOptions(
  policy: PlanOnlyPolicy,
  { defaults }: ProgramFacts,
  given: RunInput['released'],
  offloadWeights: boolean,
): ReleasedOptions {
  const asked = given === undefined ? {} : parseReleased(given);
  const unknown = Object.entries(asked).find(([name, value]) => value !== undefined && !Object.hasOwn(defaults, name));
  if (unknown !== undefined) {
    throw new FpdtError(`run.released: ${policy} has no switch '${unknown[0]}'`, {
      code: 'unknown-key',
      hint: `it has ${Object.keys(defaults).join(', ')}`,
    });
  }
  const set = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined)) as Partial<ReleasedOptions>;
  return { ...ALL_OFF, ...defaults, ...(offloadWeights ? { offloadWeights } : {}), ...set };
}

function givesRanks({ sequenceParallelSize, dataParallelSize }: RunInput, config: JsonObject): boolean {
  return sequenceParallelSize !== undefined || dataParallelSize !== undefined || config['sequence_parallel_size'] !== undefined;
}

/** As many ranks to a sequence as the program takes. */
function ranksOf(
  { takesRanks }: ProgramFacts,
  { model, cluster }: Pick<Specs, 'model' | 'cluster'>,
): Pick<RunInput, 'sequenceParallelSize'> {
  let size = cluster.numRanks;
  while (size > 1 && !(cluster.numRanks % size === 0 && takesRanks(size, model, cluster.ranksPerNode))) size -= 1;
  return { sequenceParallelSize: size };
}

function checkRun(policy: PlanOnlyPolicy, program: ProgramFacts, { model, cluster, run }: Pick<Specs, 'model' | 'cluster' | 'run'>): void {
  const refuse = (what: string, hint: string): never => {
    throw new FpdtError(`${policy} ${what}`, { code: 'unsupported', hint });
  };
  if (cluster.device !== 'cuda') refuse(`runs on GPUs, not on ${cluster.device}`, 'give a GPU of the catalog');
  if (!program.takesRanks(run.sequenceParallelSize, model, cluster.ranksPerNode)) {
    const { sequenceParallelSize: fits = 1 } = ranksOf(program, { model, cluster });
    refuse(`needs ${program.headRule}, not ${run.sequenceParallelSize} ranks to a sequence`, `sequenceParallelSize=${fits} works`);
  }
  if (!program.takesWindows && model.windows.some((window) => window !== null && window < run.seqLen)) {
    refuse('has no sliding window of attention', 'use alst-released, or a policy that runs');
  }
}

function kernelOf(asked: string | undefined, { kernels }: ProgramFacts, { rates }: ClusterSpec): string {
  const known = [...new Set(rates.attentionKernels.map(({ kernel }) => kernel))];
  if (asked === undefined) return kernels.find((name) => known.includes(name)) ?? known[0] ?? 'flash2';
  if (known.includes(asked)) return asked;
  const nearest = nearestKey(asked, known);
  throw new FpdtError(`no rate of an attention kernel '${asked}' on this device`, {
    code: 'unknown-kernel',
    hint: `${nearest === undefined ? '' : `did you mean '${nearest}'? `}known: ${known.join(', ')}`,
  });
}
