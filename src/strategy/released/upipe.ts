/**
 * UPipe (arXiv 2602.21196, togethercomputer/Untied-Ulysses): torchtitan under FSDP2. Attention goes in stages of one query head a rank
 * (`untied_ulysses/fully_fused_attn.py`), so that what stands between its all-to-alls is a stage wide. Without chunked attention all
 * heads are one stage: Ulysses in the same trainer. Across nodes a ring passes keys and values on.
 */
import { numWeightElements } from '../../catalog/parameters.js';
import { derived, type InstantName, type MemoryItem } from '../../memory/items.js';
import type { MemoryLedger } from '../../memory/ledger.js';
import { exchangeSeconds, ringSeconds } from '../../predict/links.js';
import { parallelLayout } from '../../spec/parallelLayout.js';
import { headsOfEach, sharesOrCopiesHeads } from '../../spec/parallelism.js';
import { ON_HOST } from '../../spec/releasedPrograms.js';
import {
  attentionFlops,
  attentionSeconds,
  BACKWARD_ATTENTION,
  checkpointBytes,
  forwards,
  hiddenBytes,
  logitsPart,
  type MicroStep,
  productSeconds,
  term,
  type TimeTerm,
  trafficSeconds,
  waitedCopySeconds,
  WIDE,
} from './costs.js';
import { checkpoints, items, pinnedBlock, releasedLedger, type States } from './memory.js';
import type { ReleasedProgram } from './program.js';
import type { ReleasedSetting } from './setting.js';
import { ligerRows } from './ulysses.js';

/** exps/llama3_8b/run_all_8B.sh: inputs of more tokens a node are not pinned. */
const MOST_PINNED_TOKENS = 4194304;

export const upipe: ReleasedProgram = {
  facts: {
    defaults: { checkpoints: ON_HOST, chunkedAttention: true, tiledLoss: true, tiledMlp: true, offloadWeights: false },
    kernels: ['flash3', 'flash2'],
    takesRanks: (ranks, model, ranksPerNode) => {
      const inNode = Math.min(ranks, ranksPerNode);
      return ranks % inNode === 0 && sharesOrCopiesHeads(inNode, model);
    },
    headRule: 'ranks of a node that divide the query heads, with key/value heads that they divide or are divided by, and whole nodes',
    sharding: 'FSDP2',
    takesWindows: false,
  },
  memory,
  micro,
  step,
  remarks: () => ['UPipe runs under FSDP2, not DeepSpeed: of a ds_config only gradient accumulation counts'],
};

/** Ranks of a node share heads, nodes share the sequence in a ring. */
function headRanks({ run, cluster }: Pick<ReleasedSetting, 'run' | 'cluster'>): number {
  return Math.min(run.sequenceParallelSize, cluster.ranksPerNode);
}

function stages(setting: ReleasedSetting): number {
  return setting.options.chunkedAttention ? headsOfEach(headRanks(setting), setting.model) : 1;
}

function isPinned({ tokens, run, cluster }: ReleasedSetting): boolean {
  return tokens / Math.ceil(run.sequenceParallelSize / cluster.ranksPerNode) <= MOST_PINNED_TOKENS;
}

function micro(setting: ReleasedSetting): MicroStep {
  const { model, rows, tokens, layer, options } = setting;
  const layers = model.numLayers;
  const times = forwards(setting);
  // The backward of a stage projects it again.
  const inputTimes = times + 2 + (options.chunkedAttention ? 1 : 0);
  const mlpTimes = times + 2 + (options.tiledMlp ? 1 : 0);
  const tiles = options.tiledMlp ? Math.ceil(rows / model.hiddenSize) : 1;
  const attention = attentionFlops(setting);
  const logits = logitsPart(setting);
  const numStages = stages(setting);
  const terms: readonly TimeTerm[] = [
    term(
      'attention forward',
      times * attentionSeconds(attention, layers * tokens, setting, 'forward'),
      `${times} times, ${setting.kernel}`,
    ),
    term('attention backward', attentionSeconds(attention, layers * tokens, setting, 'backward'), setting.kernel),
    term(
      'projections',
      layers * (productSeconds(layer.input, rows, inputTimes, 1, setting) + productSeconds(layer.output, rows, times + 2, 1, setting)),
      `to q, k, v ${inputTimes} times, the output's ${times + 2} times`,
    ),
    term('MLP', layers * productSeconds(layer.mlp, rows, mlpTimes, tiles, setting), `${mlpTimes} times in ${tiles} tiles`),
    term('logits', productSeconds(logits, rows, 3, 1, setting), '3 times, no recompute'),
    ...elementwise(setting, tiles, times),
    ...exchanges(setting, times),
    term(
      'checkpoints to the host and back',
      options.checkpoints === ON_HOST ? waitedCopySeconds(checkpointBytes(setting), isPinned(setting), setting) : 0,
      `torch's save_on_cpu, ${isPinned(setting) ? 'pinned' : 'not pinned, as the inputs of so long a sequence'}; waited for`,
    ),
  ];
  const products =
    layers * (inputTimes * layer.input.flops + (times + 2) * layer.output.flops + mlpTimes * layer.mlp.flops) + 3 * logits.flops;
  return {
    terms,
    kernels: layers * (numStages * (12 * times + 30) + tiles * (5 * (times + 1) + 10) + layer.eager.backwardKernels),
    productFlops: products * rows,
    attentionFlops: (times + BACKWARD_ATTENTION) * attention,
  };
}

/** torch's own kernels: norms fused, activation and product apart, flash-attn's rotation. */
function elementwise(setting: ReleasedSetting, tiles: number, times: number): readonly TimeTerm[] {
  const { model, rows, layer, options, sizes } = setting;
  const { h, q, kv, w } = sizes;
  const mlp = 5 * layer.mlpWidth;
  const forward = 10 * h + 2 * (q + kv) + mlp + 2 * q;
  const backward = 21 * h + 4 * (q + kv) + 2 * mlp + (2 * stages(setting) + 2) * h + 6 * q;
  // Joined outputs, zeros and sums of gradients, of norms and the MLP; every tile adds to the gradients of the weights.
  const tiled = options.tiledMlp ? w * (6 * times * h + 12 * h) + (3 * w * tiles * layer.mlp.weightElements) / rows : 0;
  const logits = options.tiledLoss ? 3 * w : 2 * (w + WIDE) + 6 * WIDE;
  const bytes = model.numLayers * rows * (w * (times * forward + backward) + tiled);
  return [
    term('element-wise kernels', trafficSeconds(bytes, setting), 'passes over values of a layer'),
    term('loss, element-wise', trafficSeconds(rows * model.vocabSize * logits, setting), 'passes over logits'),
  ];
}

/** Stage by stage q, k, v to heads and o back; in backward all of them, o and its gradient to heads and three gradients back. */
function exchanges(setting: ReleasedSetting, times: number): readonly TimeTerm[] {
  const { model, cluster, run, rows, sizes } = setting;
  const ranks = headRanks(setting);
  if (run.sequenceParallelSize === 1) return [];
  const layout = parallelLayout(model, { sequenceParallelSize: ranks, dataParallelSize: cluster.numRanks / ranks }, cluster.ranksPerNode);
  const kv = Math.max(sizes.kv, ranks * sizes.d);
  const [forward, backward] = [2 * sizes.q + 2 * kv, 4 * sizes.q + 4 * kv].map((elements) => rows * sizes.w * elements) as [number, number];
  const messages = 4 * stages(setting);
  const once = (bytes: number, count: number): number => exchangeSeconds(bytes, count, cluster, layout);
  const nodes = run.sequenceParallelSize / ranks;
  const passed = 2 * rows * sizes.w * kv * (nodes - 1);
  const ring = (2 * passed) / cluster.rates.interNodeBytes;
  const attention = attentionSeconds(attentionFlops(setting), model.numLayers * setting.tokens, setting, 'forward') / model.numLayers;
  return [
    term(
      'all-to-all',
      model.numLayers * (times * once(forward, messages) + once(backward, 2 * messages)),
      'a stage at a time, nothing beside them',
    ),
    term(
      'permuting around all-to-all',
      trafficSeconds(model.numLayers * 3 * (times * forward + backward), setting),
      'a copy before an exchange to heads, two around one back',
    ),
    term('ring between nodes, exposed', model.numLayers * (times + 1) * Math.max(0, ring - attention), 'k, v passed on beside attention'),
  ];
}

/** FSDP2: weights gathered forward and backward in the model dtype, gradients reduced in fp32 (torchtitan's mixed precision). */
function step(setting: ReleasedSetting): readonly TimeTerm[] {
  const { cluster, run, parameters, options, sizes } = setting;
  const { rates, numRanks } = cluster;
  const { terms, kernels } = micro(setting);
  const launches = term('launches', kernels * rates.launchSeconds, 'kernels * launchSeconds');
  const device = [...terms, launches].reduce((sum, { seconds }) => sum + seconds, 0);
  const all = parameters.numModelParameters;
  const fetched = options.offloadWeights ? (2 * WIDE * all) / numRanks / rates.h2dBytes + (WIDE * all) / numRanks / rates.d2hBytes : 0;
  const sharding = 2 * ringSeconds(sizes.w * all, cluster, 'gatherBytes') + ringSeconds(WIDE * all, cluster, 'reduceBytes') + fetched;
  const each = [
    ...terms,
    launches,
    term(
      'host issue',
      Math.max(0, kernels * rates.hostSecondsPerKernel - device),
      'kernels * hostSecondsPerKernel, beyond what the device takes',
    ),
    term('FSDP, exposed', Math.max(0, sharding - device), 'gathers and reductions, beyond what the device takes'),
  ].map((one) => ({ ...one, seconds: run.gradientAccumulationSteps * one.seconds }));
  const update = options.offloadWeights ? rates.offloadedOptimizerSecondsPerParameter : rates.optimizerSecondsPerParameter;
  return [...each, term('optimizer step', (all / numRanks) * update, 'AdamW, parameters / ranks')].filter(({ seconds }) => seconds > 0);
}

function memory(setting: ReleasedSetting): MemoryLedger {
  const { options, tokens, rows, sizes, model, layer } = setting;
  const { hidden } = items(setting);
  const whole = options.checkpoints === 'none' ? keptOfOthers(setting) : checkpoints(setting, 'device');
  const own = options.checkpoints === 'device' ? 0 : 1;
  const tileRows = options.tiledMlp ? Math.min(rows, model.hiddenSize) : rows;
  const attentionKept = [
    hidden('layer input and its norm', own + 1, 'kept by tiled norms'),
    hidden('attention output', sizes.q / sizes.h, 'of all heads'),
    derived('lse', WIDE * rows * model.numHeads, '4 B * tokens / ranks * heads'),
  ];
  return releasedLedger(setting, {
    states: fsdpStates(setting),
    device: [derived('rotary table of the whole sequence', 4 * tokens * sizes.d, '4 B * tokens * head dim: complex64 of half of it')],
    pinned: hostCheckpoints(setting),
    fragmentation: 0,
    moments: [
      { name: 'loss', items: [...whole, hidden('hidden states, their norm and gradient', 3, ''), ...lossItems(setting)] },
      {
        name: 'layerBackward',
        items: [
          ...whole,
          ...attentionKept,
          hidden('reordered attention output', sizes.q / sizes.h, 'input of the output projection'),
          hidden('residual, its norm and the gradient of the layer', 3, ''),
          ...(options.tiledMlp ? [hidden('gradient of the MLP, of zeros', 1, 'TiledMLP.backward')] : []),
          derived(
            'inside the MLP',
            tileRows * sizes.w * (layer.mlpKept + 2 * layer.mlpWidth),
            options.tiledMlp ? 'of one tile' : 'what its backward reads',
          ),
        ],
      },
      {
        name: 'layerBackward',
        items: [
          ...whole,
          ...attentionKept,
          hidden("gradient of attention's output", sizes.q / sizes.h, 'of all heads'),
          hidden('gradients behind attention and of its input', 2, 'residual, and dx summed over stages'),
          ...stageItems(setting),
        ],
      },
      { name: 'optimizerStep', items: [] },
    ],
  });
}

/** What autograd keeps of a layer, without checkpoints. */
function keptOfOthers({ model, rows, sizes, layer, options }: ReleasedSetting): readonly MemoryItem[] {
  const each = 4 * sizes.h + 2 * sizes.q + 2 * sizes.kv + (options.tiledMlp ? 0 : layer.mlpKept);
  return [
    derived('activations of the other layers', (model.numLayers - 1) * rows * sizes.w * each, '(layers - 1) * what autograd keeps of one'),
  ];
}

/** upipe_attn_gqa_backward: of a stage q, o, its gradient and dq, with copies around exchanges; k, v, their gradients, and sums of them. */
function stageItems(setting: ReleasedSetting): readonly MemoryItem[] {
  const { rows, sizes, kernel } = setting;
  const numStages = stages(setting);
  const query = (rows * sizes.w * sizes.q) / numStages;
  const keyValue = Math.min(query, Math.max(rows * sizes.w * sizes.kv, query / numStages));
  const inside = kernel === 'flash2' && query > keyValue ? 2 * query : 2 * keyValue * (WIDE / sizes.w);
  return [
    derived('queries of a stage', 4 * query, 'q, o, gradient of o and dq'),
    derived('keys and values of a stage', 6 * keyValue, 'k, v, their gradients and the sums of those'),
    derived("inside attention's backward", (WIDE / sizes.w) * query + inside, 'dq in fp32; dk and dv in fp32, or by query head'),
  ];
}

function hostCheckpoints(setting: ReleasedSetting): readonly MemoryItem[] {
  if (setting.options.checkpoints !== ON_HOST || !isPinned(setting)) return checkpoints(setting, ON_HOST);
  const one = pinnedBlock(hiddenBytes(setting));
  return [
    derived(
      'checkpoints of all layers',
      setting.model.numLayers * one,
      'layers * [tokens / ranks, hidden size] in blocks of powers of two',
    ),
  ];
}

function lossItems(setting: ReleasedSetting): readonly MemoryItem[] {
  const { rows, model, sizes, options } = setting;
  const tile = derived('tile of logits', ligerRows(setting) * sizes.w * model.vocabSize, 'rows of a tile * vocabulary');
  const gradient = derived('gradient of lm_head', sizes.w * model.vocabSize * model.hiddenSize, 'made in forward');
  if (options.tiledLoss) return [tile, gradient];
  return [derived('logits', rows * (sizes.w + 3 * WIDE) * model.vocabSize, 'in the model dtype, and three in fp32')];
}

/** apply_fsdp: fp32 shards; a layer and the next gathered, its gradients before and in fp32; embedding and head stay gathered. */
function fsdpStates({ parameters, cluster, options, sizes, model }: ReleasedSetting): States {
  const share = parameters.numModelParameters / cluster.numRanks;
  const layer = Math.max(...parameters.layers.map(({ weights }) => numWeightElements(weights)));
  const ends = numWeightElements([...parameters.embed, ...parameters.head]);
  const states = [
    derived('weight shard', WIDE * share, '4 B * parameters / ranks'),
    derived('gradient shard', WIDE * share, '4 B * parameters / ranks'),
    derived('Adam states', 2 * WIDE * share, '8 B * parameters / ranks'),
  ];
  const gathered = derived('gathered weights', sizes.w * (ends + Math.min(2, model.numLayers) * layer), 'embedding, head, and two layers');
  const reduced = derived('gradients being reduced', (sizes.w + WIDE) * layer, 'of a layer, and in fp32');
  return {
    device: options.offloadWeights ? [] : states,
    pinned: options.offloadWeights ? states : [],
    instants: (name: InstantName) => (name === 'optimizerStep' ? [] : name === 'layerBackward' ? [gathered, reduced] : [gathered]),
  };
}
