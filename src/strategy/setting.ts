/** What does not change from candidate to candidate: specs, layout, kernels, pools, and the formulas made of them. */
import { ATTENTION_KERNELS, type AttentionKernel, type Kernels, defaultKernels, kernelNamed } from '../catalog/kernels.js';
import { opSizes, type OpSizes, temporaryBytes } from '../catalog/ops/index.js';
import { parameterTable } from '../catalog/parameters.js';
import { type PoolCapacity, linksOf, poolsOf, streamsOf } from '../catalog/pools.js';
import type { Machine, ScratchFormula } from '../schedule/build.js';
import { type Places, placesOf } from '../schedule/places.js';
import { mostRangeChunks, type PolicyContext } from '../schedule/policies/index.js';
import { FpdtError } from '../spec/errors.js';
import { type ParallelLayout, parallelLayout } from '../spec/parallelLayout.js';
import { withChunks } from '../spec/sizes.js';
import type { Strategy } from '../spec/strategy.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';

export interface BuildInput {
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: DeepSpeedConfig;
}

export interface Setting extends BuildInput {
  readonly parameters: ParameterTable;
  readonly layout: ParallelLayout;
  readonly kernels: Kernels;
  readonly pools: readonly PoolCapacity[];
  readonly machine: Machine;
  readonly places: Places;
  readonly sizes: OpSizes;
}

export function settingOf(input: BuildInput): Setting {
  const { model, run, cluster } = input;
  const parameters = parameterTable(model);
  const layout = parallelLayout(model, run, cluster.ranksPerNode);
  const kernels = kernelsFor(input);
  const pools = poolsOf(cluster);
  const links = linksOf(pools);
  return {
    ...input,
    parameters,
    layout,
    kernels,
    pools,
    machine: { pools: pools.map(({ name, kind, bytes }) => ({ name, kind, bytes })), links, streams: streamsOf(links) },
    places: placesOf(pools, links),
    sizes: opSizes({ model, run, parameters, layout, device: cluster.device, kernels }),
  };
}

/** The run's attention kernel, or the device's own; one that has what the model needs. */
function kernelsFor(input: BuildInput): Kernels {
  const { run, cluster } = input;
  const name = run.attention ?? defaultKernels(cluster.device).attn;
  const lacks = lackOf(kernelNamed(name), input);
  if (lacks === undefined) return { attn: name, attnBwd: name };
  const others = ATTENTION_KERNELS.filter((kernel) => lackOf(kernel, input) === undefined);
  const [only] = others;
  if (run.attention === undefined && only !== undefined) return { attn: only.name, attnBwd: only.name };
  throw new FpdtError(`the attention kernel '${name}' ${lacks}`, {
    code: 'unsupported',
    hint: others.length === 0 ? 'no kernel does; use bfloat16 or float16 on a GPU' : `use ${others.map((one) => one.name).join(' or ')}`,
  });
}

/** What a kernel lacks for a run, if anything. */
function lackOf(kernel: AttentionKernel, { model, run, cluster }: BuildInput): string | undefined {
  const { multipleOf, atMost } = kernel.headDims;
  if (!kernel.devices.includes(cluster.device) || !kernel.dtypes.includes(run.dtype))
    return `does not run ${run.dtype} on ${cluster.device}`;
  if (!kernel.window && model.windows.some((window) => window !== null && window < run.seqLen)) return 'has no sliding window';
  if (!kernel.softcap && model.code.classes.some(({ attention }) => attention.softcap !== null)) return 'has no softcap of scores';
  if (model.headDim % multipleOf !== 0 || model.headDim > atMost) {
    return `takes head dims that are multiples of ${multipleOf} up to ${atMost}, not ${model.headDim}`;
  }
  return undefined;
}

export function policyContext(setting: Setting, strategy: Strategy): PolicyContext {
  const { model, run, parameters, layout, places, kernels } = setting;
  const { rectangle, window } = kernelNamed(kernels.attn);
  return {
    model,
    run: withChunks(run, strategy.numChunks),
    strategy,
    parameters,
    layout,
    places,
    rangeChunks: mostRangeChunks(strategy),
    masks: { rectangle, window },
  };
}

export function scratchFormula({ sizes }: Setting): ScratchFormula {
  return (op, attribute, buffers) => temporaryBytes(op, attribute, buffers, sizes);
}
