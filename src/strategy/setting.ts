/** What does not change from candidate to candidate: specs, layout, kernels, pools, and the formulas made of them. */
import { chooseKernel } from '../catalog/kernelChoice.js';
import { fusedKernels } from '../catalog/fusedKernels.js';
import { type Kernels, kernelNamed } from '../catalog/kernels.js';
import { opSizes, type OpSizes, temporaryBytes } from '../catalog/ops/index.js';
import { parameterTable } from '../catalog/parameters.js';
import { type PoolCapacity, linksOf, poolsOf, streamsOf } from '../catalog/pools.js';
import { refuseTooFewBuffers } from '../memory/optimizerDisk.js';
import { refuseUnreadable, type WeightFacts } from '../memory/weightsDisk.js';
import { zeroSettings } from '../memory/zeroSettings.js';
import type { Machine, ScratchFormula } from '../schedule/build.js';
import { type Places, placesOf } from '../schedule/places.js';
import { mostRangeChunks, type PolicyContext } from '../schedule/policies/index.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
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

export function settingOf(asked: BuildInput): Setting {
  const input = { ...asked, model: withinSequence(asked.model, asked.run) };
  const { model, run, cluster } = input;
  const parameters = parameterTable(model);
  const facts: WeightFacts = {
    parameters,
    classOf: model.code.classOf,
    numRanks: cluster.numRanks,
    w: DTYPE_BYTES[run.dtype],
    zero: zeroSettings(input.deepspeed),
  };
  refuseUnreadable(facts);
  refuseTooFewBuffers(facts);
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

const shortened = new WeakMap<ModelSpec, Map<string, ModelSpec>>();

/** Without windows that hide nothing: of a sequence that is no longer, padding apart, which no token sees. One model for equal windows. */
function withinSequence(model: ModelSpec, { seqLen }: RunSpec): ModelSpec {
  const windows = model.windows.map((window) => (window !== null && window >= seqLen ? null : window));
  if (windows.every((window, layer) => window === model.windows[layer])) return model;
  const known = shortened.get(model) ?? new Map<string, ModelSpec>();
  shortened.set(model, known);
  const key = JSON.stringify(windows);
  const found = known.get(key) ?? { ...model, windows };
  known.set(key, found);
  return found;
}

/** Whether some layer has a sliding window. */
export function hasWindows({ windows }: Pick<ModelSpec, 'windows'>): boolean {
  return windows.some((window) => window !== null);
}

function kernelsFor({ model, run, cluster }: BuildInput): Kernels {
  const needs = {
    dtype: run.dtype,
    headDim: model.headDim,
    groupedHeads: model.numKvHeads !== model.numHeads,
    window: hasWindows(model),
    softcap: model.code.classes.some(({ attention }) => attention.softcap !== null),
    // A document has any number of rows.
    rowTile: run.packing === true ? 1 : run.rowTile,
  };
  const name = chooseKernel(run.attention, needs, cluster);
  return { attn: name, attnBwd: name, fused: fusedKernels({ dtype: run.dtype, device: cluster.device }, run.kernels) };
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
