/** A plan in a screenful of plain text: does it fit, what fills memory when, and what a step is predicted to cost. */
import { configRemarks } from '../catalog/configRemarks.js';
import { namedKernels } from '../catalog/fusedKernels.js';
import type { Kernels } from '../catalog/kernels.js';
import { poolLabel } from '../catalog/pools.js';
import { excessBytes, type MemoryInstant, type MemoryItem, type PoolLedger, peakItems } from '../memory/ledger.js';
import { sumBytes } from '../memory/items.js';
import type { SectionPrediction } from '../predict/prediction.js';
import { RATE_ORIGINS } from '../spec/clusterSpec.js';
import { remarks } from '../spec/remarks.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { ClusterSpec } from '../spec/types.js';
import { type LayerStrategy, RECOMPUTE, type Strategy } from '../spec/strategy.js';
import { planCost } from './cost.js';
import { evaluationLines } from './evaluationText.js';
import type { ExecutionPlan } from './executionPlan.js';

const NUM_LARGEST_ITEMS = 10;

type PricedPlan = Parameters<typeof planCost>[0] & { readonly cluster: Pick<ClusterSpec, 'device'> };

/** Lines without colour or trailing newline; with money where a GPU-hour has a price. */
export function planSummary(plan: ExecutionPlan, usdPerGpuHour?: number): string {
  return [
    ...headLines(plan),
    ...strategyLines(plan),
    ...[...remarks(plan), ...configRemarks(plan.model)].map((text) => `Remark      ${text}`),
    ...programLines(plan),
    ...plan.memory.pools.flatMap((pool) => ['', ...poolLines(pool)]),
    '',
    ...timeLines(plan),
    costLine(plan, usdPerGpuHour),
    '',
    `Digest      ${plan.digest}`,
  ].join('\n');
}

function headLines({ model, cluster, run, strategy, memory, parameters }: ExecutionPlan): readonly string[] {
  const padding = run.paddedSeqLen === run.seqLen ? '' : `, padded to ${run.paddedSeqLen}`;
  const fullness = memory.pools.map((pool) => `${poolLabel(pool.pool)} ${percent(pool)} full at ${pool.peakInstant}`);
  return [
    `Fits        ${memory.fits ? 'yes' : 'no'}: ${fullness.join(', ')}`,
    `Model       ${model.family}, ${model.numLayers} layers of ${model.hiddenSize}, ${model.numHeads} heads (${model.numKvHeads} kv), ${run.dtype}`,
    `Cluster     ${cluster.name}: ${cluster.numRanks} ranks, sequence parallel ${run.sequenceParallelSize} x data parallel ${run.dataParallelSize}, ZeRO-${run.zeroStage}`,
    `Sequence    ${run.seqLen} tokens${padding}; ${count(strategy.numChunks, 'chunk')} of ${strategy.chunkTokens} (${strategy.localChunkTokens} per rank)`,
    ...trainingLines(parameters),
    ...rotaryLines(model, run.seqLen),
  ];
}

/** Where not all of it does. */
function trainingLines({ numModelParameters: all, numTrainedParameters: trained }: ExecutionPlan['parameters']): readonly string[] {
  return trained === all ? [] : [`Trains      ${trained} of ${all} parameters (${((100 * trained) / all).toPrecision(3)}%)`];
}

function rotaryLines({ code }: ExecutionPlan['model'], seqLen: number): readonly string[] {
  if (!code.classes.some(({ pre }) => pre.instructions.some(({ op }) => op === 'angles'))) return [];
  const error = rotaryError(seqLen).toPrecision(2);
  return [`Rotary      fp32 angles by absolute position, as Hugging Face forms them: off by up to ${error} rad at the last token`];
}

/** Half a unit in the last place of position * frequency in fp32: 0.03 rad at 1M tokens, 0.5 at 15M. */
function rotaryError(seqLen: number): number {
  return 2 ** (Math.floor(Math.log2(Math.max(1, seqLen - 1))) - 24);
}

/** What holds for the whole model, then a line for every range of layers. */
function strategyLines({ strategy, kernels }: ExecutionPlan): readonly string[] {
  const attention = kernels.attn === kernels.attnBwd ? kernels.attn : `${kernels.attn} forward, ${kernels.attnBwd} backward`;
  const parts = [
    `attention by ${attention}`,
    `prefetch depth ${strategy.prefetchDepth}`,
    ...tileTexts(strategy),
    `hidden gradients in ${strategy.hiddenGradients}`,
  ];
  return [`Strategy    ${strategy.policy}: ${parts.join(', ')}`, ...strategy.layers.map(layersLine), ...kernelLines(kernels)];
}

/** Those beside attention that are not plain. */
function kernelLines({ fused }: Kernels): readonly string[] {
  if (fused === undefined) return [];
  const texts = Object.entries(namedKernels(fused)).map(([kind, name]) => `${kind} ${name}`);
  return [`Kernels     ${texts.length === 0 ? 'plain' : texts.join(', ')}`];
}

function tileTexts({ kvTileChunks, numLossTiles, numTokenTiles, headGroups = 1 }: Strategy): readonly string[] {
  return [
    ...(headGroups > 1 ? [`heads in ${headGroups} groups`] : []),
    ...(kvTileChunks > 1 ? [`k, v fetched ${kvTileChunks} chunks at a time`] : []),
    ...(numTokenTiles > 1 ? [`${numTokenTiles} token tiles a chunk`] : []),
    `${count(numLossTiles, 'loss tile')} a chunk`,
  ];
}

function layersLine(range: LayerStrategy): string {
  const { layers, keyValues, keyValueGradients, attentionOutput, checkpoints, backwardOrder, segments } = range;
  const { internals = RECOMPUTE } = range;
  const [start, end] = layers;
  const name = end - start === 1 ? `layer ${start}` : `layers ${start}-${end - 1}`;
  const output = attentionOutput === RECOMPUTE ? `recomputed${rebuiltText(range)}` : `saved in ${attentionOutput}`;
  const parts = [
    `k, v in ${keyValues}, their gradients in ${keyValueGradients}`,
    `attention output ${output}`,
    ...(internals === RECOMPUTE ? [] : [`products of each layer kept in ${internals}`]),
    `layer inputs in ${checkpoints}, every ${everyText(segments)}`,
    `backward ${backwardOrder}`,
  ];
  return `  ${name.padEnd(12)}  ${parts.join('; ')}`;
}

function rebuiltText({ rebuiltOutput = RECOMPUTE, rebuildsLast = false }: LayerStrategy): string {
  if (rebuiltOutput === RECOMPUTE) return '';
  return `, in ${rebuiltOutput} once rebuilt${rebuildsLast ? ', the last of a segment too' : ''}`;
}

/** `layer`, `2 layers`, or `2 or 3 layers` where segments differ. */
function everyText(segments: readonly number[]): string {
  const lengths = [...new Set(segments)].sort((a, b) => a - b);
  return lengths.join() === '1' ? 'layer' : `${lengths.join(' or ')} layers`;
}

function programLines({ sections, programs, features }: ExecutionPlan): readonly string[] {
  const numOps = sections.reduce((sum, { ops }) => sum + ops.length, 0);
  const calls = programs.train.turns.flatMap((turn) => turn.calls);
  const numOwn = calls.filter(({ owner }) => owner === 'plan').length;
  return [
    `Program     ${count(programs.train.turns.length, 'turn')}, ${count(numOwn, 'call')} and ${calls.length - numOwn} of ZeRO's`,
    `Ops         ${numOps} in ${count(sections.length, 'section')}: ${sections.map(({ name, ops }) => `${name} ${ops.length}`).join(', ')}`,
    `Features    ${features.length === 0 ? 'none' : features.join(', ')}`,
  ];
}

/** Instants are listed only where something comes and goes, start-up only where it needs something. */
export function poolLines(pool: PoolLedger): readonly string[] {
  const [first] = pool.instants;
  const changes = pool.instants.some(({ totalBytes }) => totalBytes !== first?.totalBytes);
  const instants = [...(pool.load.totalBytes > 0 ? [pool.load] : []), ...(changes ? pool.instants : [])];
  const items = peakItems(pool)
    .filter(({ bytes }) => bytes > 0)
    .sort((a, b) => b.bytes - a.bytes);
  const width = Math.max(0, ...instants.map(({ name }) => name.length), ...items.map(({ name }) => name.length));
  const at = changes || pool.peakInstant === pool.load.name ? ` at ${pool.peakInstant}` : '';
  const missing = pool.fits ? '' : `, ${formatBytes(excessBytes(pool))} too much`;
  const reserve = pool.reserveBytes === 0 ? '' : `, ${formatBytes(pool.reserveBytes)} kept free`;
  return [
    `${capitalized(poolLabel(pool.pool))} per rank: ${formatBytes(pool.peakBytes)} of ${formatBytes(pool.capacityBytes)}${at}${reserve}${missing}`,
    ...instants.map((instant) => instantLine(instant, width, pool.peakInstant)),
    ...(items.length === 0 ? [] : [`  largest${at}:`]),
    ...items.slice(0, NUM_LARGEST_ITEMS).map((item) => itemLine(item, width)),
    ...restLines(items.slice(NUM_LARGEST_ITEMS), width),
  ];
}

function instantLine({ name, totalBytes }: MemoryInstant, width: number, peak: string): string {
  return `  ${name.padEnd(width)}  ${formatBytes(totalBytes).padStart(10)}${name === peak ? '  <- peak' : ''}`;
}

function itemLine({ name, bytes, provenance, note }: MemoryItem, width: number): string {
  return `    ${name.padEnd(width)}  ${formatBytes(bytes).padStart(10)}  ${provenance}: ${note}`;
}

/** Those that are not listed, so that the list adds up. */
function restLines(items: readonly MemoryItem[], width: number): readonly string[] {
  if (items.length === 0) return [];
  return [`    ${'others'.padEnd(width)}  ${formatBytes(sumBytes(items)).padStart(10)}  ${items.map(({ name }) => name).join(', ')}`];
}

function timeLines(plan: ExecutionPlan): readonly string[] {
  const { prediction, cluster } = plan;
  const { stepSeconds, tokensPerSecond, mfu, sections, hostBoundSeconds, isHostBound } = prediction;
  const fixed = prediction.outsideSeconds;
  const advice = isHostBound ? ': larger chunks are faster' : '';
  return [
    `Step        ${formatSeconds(stepSeconds)} predicted, ${tokensPerSecond.toPrecision(4)} tokens/s (rates ${cluster.ratesProvenance}: ${cluster.ratesSource})`,
    ...sections.filter(({ makespanSeconds }) => makespanSeconds > 0).map((section) => sectionLine(section, stepSeconds)),
    ...(fixed > 0
      ? [`  ${'outside the ops'.padEnd(20)} ${formatSeconds(fixed).padStart(10)}  ${share(fixed, stepSeconds).padStart(6)}`]
      : []),
    ...rateLines(prediction),
    `Copies      ${copiesText(plan)}`,
    ...evaluationLines(plan),
    `Host bound  ${formatSeconds(hostBoundSeconds)} (${share(hostBoundSeconds, stepSeconds)}) of the step waits for the host to issue ops${advice}`,
    `MFU         ${share(mfu.causalModel)} causal model FLOPs; ${share(mfu.causalHardware)} causal with recompute; ${share(mfu.fullModel)} full attention; ${share(mfu.fullHardware)} full with recompute`,
  ];
}

/** Lines for each way in which rates were come by. */
function rateLines({ rateOrigins }: ExecutionPlan['prediction']): readonly string[] {
  const named = RATE_ORIGINS.map((origin) => ({
    origin,
    names: Object.entries(rateOrigins).flatMap(([name, found]) => (found === origin ? [name] : [])),
  })).filter(({ names }) => names.length > 0);
  const lines = named.flatMap(({ origin, names }) => wrapped(`${origin}:`, names));
  return lines.map((line, i) => `${(i === 0 ? 'Rates' : '').padEnd(12)}${line}`);
}

const LINE_WIDTH = 120;

/** Words behind a first one, in lines of at most LINE_WIDTH columns. */
function wrapped(first: string, words: readonly string[]): readonly string[] {
  const lines = [first];
  for (const [i, word] of words.entries()) {
    const text = i < words.length - 1 ? `${word},` : word;
    const line = `${lines.at(-1) ?? ''} ${text}`;
    if (line.length > LINE_WIDTH) lines.push(`  ${text}`);
    else lines[lines.length - 1] = line;
  }
  return lines;
}

function sectionLine({ name, runs, makespanSeconds, exposedCopySeconds }: SectionPrediction, stepSeconds: number): string {
  const total = runs * makespanSeconds;
  const exposed = exposedCopySeconds > 0 ? `, ${formatSeconds(exposedCopySeconds)} of it exposed copies` : '';
  return `  ${name.padEnd(20)} ${formatSeconds(total).padStart(10)}  ${share(total, stepSeconds).padStart(6)}  ${runs} x ${formatSeconds(makespanSeconds)}${exposed}`;
}

/** By link, where anything is copied. */
function copiesText({ links, prediction: { copiedBytes, exposedCopySeconds, stepSeconds } }: ExecutionPlan): string {
  const copied = links.filter(({ stream }) => (copiedBytes[stream] ?? 0) > 0);
  if (copied.length === 0) return 'none between pools';
  const bytes = copied.map(({ from, to, stream }) => `${formatBytes(copiedBytes[stream] ?? 0)} ${from} to ${to}`).join(', ');
  return `${bytes} a step and rank; ${formatSeconds(exposedCopySeconds)} exposed (${share(exposedCopySeconds, stepSeconds)})`;
}

export function costLine(plan: PricedPlan, price?: number): string {
  const { gpuHoursPerStep, gpuHoursPerBillionTokens, usdPerStep, usdPerBillionTokens } = planCost(plan, price);
  const hours = `${digits(gpuHoursPerStep)} a step, ${digits(gpuHoursPerBillionTokens)} a billion tokens`;
  const what = plan.cluster.device === 'cuda' ? 'GPU hours ' : 'Rank hours';
  if (usdPerStep === undefined || usdPerBillionTokens === undefined) return `${what}  ${hours}`;
  return `${what}  ${hours}; at $${price} each $${digits(usdPerStep)} a step, $${digits(usdPerBillionTokens)} a billion tokens`;
}

/** Four digits, or a whole number. */
function digits(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value.toPrecision(4);
}

function percent({ peakBytes, capacityBytes }: PoolLedger): string {
  return peakBytes === 0 ? '0%' : `${((100 * peakBytes) / capacityBytes).toFixed(0)}%`;
}

function share(part: number, whole = 1): string {
  return `${((100 * part) / whole).toFixed(1)}%`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
