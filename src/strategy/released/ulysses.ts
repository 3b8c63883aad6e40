/**
 * Ulysses as trainers have it: attention between two all-to-alls has whole sequences of its heads, at once; layers are recomputed from
 * their inputs by a reentrant checkpoint. DeepSpeed's `runtime/sequence_parallel/ulysses_sp.py` under Hugging Face's modules, and its
 * `sequence/layer.py` under Megatron's.
 */
import { ON_HOST } from '../../spec/releasedPrograms.js';
import { derived, type MemoryItem } from '../../memory/items.js';
import type { MemoryLedger } from '../../memory/ledger.js';
import {
  attentionFlops,
  attentionSeconds,
  BACKWARD_ATTENTION,
  checkpointBytes,
  exchange,
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
import { checkpoints, deepSpeedStates, items, releasedLedger } from './memory.js';
import type { ReleasedSetting } from './setting.js';

/** In what trainers differ. */
export interface UlyssesStyle {
  /** Norms, rotation and activation are a kernel each, which keep their inputs alone. */
  readonly fused: boolean;
  /** Numbers in fp32 for each logit, at the most, where the loss is not tiled. */
  readonly wideLogits: number;
  readonly fragmentation: number;
  /** Where checkpoints are copied, for the note. */
  readonly copies: string;
}

export const ulysses = { memory, micro };

/** `TiledMLP` (ulysses_sp.py) runs tiles of about hidden-size rows, without a graph in forward, and again in backward. */
function mlpTiles({ options, rows, model }: ReleasedSetting): number {
  return options.tiledMlp ? Math.ceil(rows / model.hiddenSize) : 1;
}

function micro(setting: ReleasedSetting, style: UlyssesStyle): MicroStep {
  const { model, rows, tokens, layer, options } = setting;
  const [times, tiles, layers] = [forwards(setting), mlpTiles(setting), model.numLayers];
  const mlpTimes = times + 2 + (options.tiledMlp ? 1 : 0);
  const attention = attentionFlops(setting);
  const queries = layers * tokens;
  const [input, output, mlp, logits] = [layer.input, layer.output, layer.mlp, logitsPart(setting)];
  const lossTiles = options.tiledLoss ? ligerTiles(setting) : 1;
  const terms: readonly TimeTerm[] = [
    term('attention forward', times * attentionSeconds(attention, queries, setting, 'forward'), `${times} times, ${setting.kernel}`),
    term('attention backward', attentionSeconds(attention, queries, setting, 'backward'), setting.kernel),
    term(
      'projections',
      layers * (productSeconds(input, rows, times + 2, 1, setting) + productSeconds(output, rows, times + 2, 1, setting)),
      `${times + 2} times: forward, recomputed, two in backward`,
    ),
    term('MLP', layers * productSeconds(mlp, rows, mlpTimes, tiles, setting), `${mlpTimes} times in ${tiles} tiles`),
    term('logits', productSeconds(logits, rows, 3, lossTiles, setting), '3 times, no recompute'),
    ...elementwise(setting, style),
    ...exchanges(setting),
    term(
      'checkpoints to the host and back',
      options.checkpoints === ON_HOST ? waitedCopySeconds(checkpointBytes(setting), false, setting) : 0,
      style.copies,
    ),
  ];
  const products = layers * ((times + 2) * (input.flops + output.flops) + mlpTimes * mlp.flops) + 3 * logits.flops;
  return {
    terms,
    kernels: kernels(setting),
    productFlops: products * rows,
    attentionFlops: (times + BACKWARD_ATTENTION) * attention,
  };
}

/** Tiles of mlp have about five kernels forward and thrice that backward. */
function kernels(setting: ReleasedSetting): number {
  const { layer, model, options } = setting;
  const perTile = options.tiledMlp ? mlpTiles(setting) * (5 * (forwards(setting) + 1) + 10) : 0;
  return model.numLayers * (forwards(setting) * layer.eager.forwardKernels + layer.eager.backwardKernels + perTile);
}

/** Passes over values of a layer, in widths of a row. Fused kernels read and write each value once; else as Hugging Face's modules. */
function elementwise(setting: ReleasedSetting, { fused: isFused, wideLogits }: UlyssesStyle): readonly TimeTerm[] {
  const { model, rows, layer, options, sizes } = setting;
  const { h, q, kv, w } = sizes;
  const times = forwards(setting);
  const [norms, residuals, rope, activation] = [4 * h, 6 * h, 4 * (q + kv), layer.mlpKeptFused + layer.mlpWidth];
  const fused = w * (times * (norms + residuals + rope + activation) + (6 * h + 9 * h + rope + 2 * activation));
  const eager = times * layer.eager.forwardBytes + layer.eager.backwardBytes;
  // Joined outputs, zeros and sums of gradients; every tile adds to the gradients of the weights.
  const tiled = options.tiledMlp ? w * (2 * times * h + 4 * h) + (3 * w * mlpTiles(setting) * layer.mlp.weightElements) / rows : 0;
  // In the model dtype and in fp32: cast, log-softmax, its two gradients, cast back. Liger's kernel reads twice and writes once.
  const logits = options.tiledLoss ? 3 * w : 2 * (w + WIDE) + 2 * wideLogits * WIDE;
  const perLayer = (isFused ? fused : eager) + tiled;
  return [
    term(
      'element-wise kernels',
      trafficSeconds(model.numLayers * rows * perLayer, setting),
      isFused ? 'fused norms, rotation and activation, residuals' : "Hugging Face's modules, kernel by kernel",
    ),
    term('loss, element-wise', trafficSeconds(rows * model.vocabSize * logits, setting), 'passes over logits'),
  ];
}

/** `UlyssesSPAttentionHF.forward`: three to heads, one back; each tensor is permuted before and behind its exchange, in three copies. */
function exchanges(setting: ReleasedSetting): readonly TimeTerm[] {
  const { run, model, tokens, sizes, options, cluster } = setting;
  if (run.sequenceParallelSize === 1) return [];
  const times = forwards(setting) + 1;
  const bytes = tokens * sizes.w * (2 * sizes.ownQ + 2 * sizes.ownKv);
  const agreed = options.tiledMlp ? model.numLayers * forwards(setting) * cluster.rates.commLatencySeconds : 0;
  return [
    term('all-to-all', model.numLayers * times * exchange(bytes, 4, setting), `q, k, v, o, ${times} times a layer, nothing beside them`),
    term('permuting around all-to-all', trafficSeconds(model.numLayers * times * 3 * 2 * bytes, setting), '3 copies of each tensor'),
    term('number of tiles agreed on', agreed, 'tiled_mlp_forward_common: an all-reduce and .item() a layer and pass'),
  ];
}

/** liger_kernel, fused_linear_cross_entropy_forward: rows of a tile are the power of two from rows / ceil(vocabulary / hidden size). */
export function ligerRows({ rows, model }: ReleasedSetting): number {
  return 2 ** Math.ceil(Math.log2(Math.ceil(rows / Math.ceil(model.vocabSize / model.hiddenSize))));
}

function ligerTiles(setting: ReleasedSetting): number {
  return Math.ceil(setting.rows / ligerRows(setting));
}

function memory(setting: ReleasedSetting, style: UlyssesStyle): MemoryLedger {
  const kept = keptItems(setting, style, 'mlp');
  const all = setting.options.checkpoints === 'none';
  const whole = all ? allLayers(setting, kept) : checkpoints(setting, 'device');
  // What autograd keeps of all layers is there when the last layer's backward begins, with no gradient but the loss's.
  const backward = all ? 'loss' : 'layerBackward';
  return releasedLedger(setting, {
    states: deepSpeedStates(setting),
    pinned: checkpoints(setting, ON_HOST),
    fragmentation: style.fragmentation,
    moments: [
      { name: 'loss', items: [...whole, ...(all ? kept : []), ...lossItems(setting, style)] },
      { name: backward, items: [...whole, ...kept, ...mlpBackward(setting)] },
      { name: backward, items: [...whole, ...keptItems(setting, style, 'attention'), ...attentionBackward(setting)] },
      { name: 'optimizerStep', items: [] },
    ],
  });
}

function allLayers(setting: ReleasedSetting, kept: readonly MemoryItem[]): readonly MemoryItem[] {
  const bytes = kept.reduce((sum, item) => sum + item.bytes, 0) - 2 * hiddenBytes(setting);
  return [derived('activations of the other layers', (setting.model.numLayers - 1) * bytes, '(layers - 1) * what autograd keeps of one')];
}

/** What autograd keeps of a layer until the MLP's backward, or until attention's. The checkpoint's frame holds output and gradient. */
function keptItems(setting: ReleasedSetting, { fused }: UlyssesStyle, until: 'mlp' | 'attention'): readonly MemoryItem[] {
  const { options, run, rows, sizes, layer } = setting;
  const { hidden, queries, keyValues, lse } = items(setting);
  const own = options.checkpoints === 'device' ? 0 : 1;
  const norm = fused ? 1 : 1 + WIDE / sizes.w + 1;
  const inner = fused ? layer.mlpKeptFused : layer.mlpKept;
  return [
    hidden('layer input and its norm', own + norm, fused ? 'a fused norm keeps its input alone' : 'kept in fp32 as well'),
    queries('q, o', 2, 'of whole sequences'),
    keyValues('k, v', 2, 'of whole sequences'),
    lse(),
    hidden('layer output and its gradient', 2, "held by the checkpoint's backward"),
    ...(until === 'attention'
      ? [hidden('gradient behind attention', 1, 'of the residual')]
      : [
          ...(run.sequenceParallelSize > 1 ? [derived('o behind its all-to-all', rows * sizes.w * sizes.q, 'input of o_proj')] : []),
          hidden('residual and its norm', 1 + norm, ''),
          derived('inside the MLP', options.tiledMlp ? 0 : rows * sizes.w * inner, 'what its backward reads'),
        ]),
  ];
}

function mlpBackward(setting: ReleasedSetting): readonly MemoryItem[] {
  const { options, rows, model, sizes, layer } = setting;
  const { hidden } = items(setting);
  const tileRows = options.tiledMlp ? Math.min(rows, model.hiddenSize) : rows;
  const inner = options.tiledMlp ? layer.mlpKeptFused + layer.mlpWidth : layer.mlpWidth;
  return [
    ...(options.tiledMlp ? [hidden('gradient of the MLP, of zeros', 1, 'TiledMLP.backward: zeros_like(x)')] : []),
    derived(
      'gradients inside the MLP',
      tileRows * sizes.w * inner,
      options.tiledMlp ? 'of one tile, with its values' : 'of its widest value',
    ),
  ];
}

/** FlashAttention-2's backward: dq in fp32, and dk, dv for every query head before they are summed over a group; FA3: both in fp32. */
function attentionBackward(setting: ReleasedSetting): readonly MemoryItem[] {
  const { kernel, sizes } = setting;
  const { queries, keyValues } = items(setting);
  const grouped = sizes.ownQ !== sizes.ownKv;
  const wide = WIDE / sizes.w;
  return [
    queries('gradients of o and q', 2, ''),
    keyValues('gradients of k and v', 2, ''),
    queries('gradient of q in fp32', wide, 'inside the kernel'),
    kernel === 'flash2'
      ? queries('gradients of k and v by query head', grouped ? 2 : 0, 'inside the kernel, before the sum over a group')
      : keyValues('gradients of k and v in fp32', grouped ? 2 * wide : 0, 'inside the kernel'),
  ];
}

/** Tiled: logits of a tile, whose gradient takes their place. */
function lossItems(setting: ReleasedSetting, { wideLogits }: UlyssesStyle): readonly MemoryItem[] {
  const { rows, model, sizes, options } = setting;
  const { hidden } = items(setting);
  const states = hidden('hidden states, their norm and gradient', 3, '');
  if (options.tiledLoss) {
    return [
      states,
      derived('tile of logits', ligerRows(setting) * sizes.w * model.vocabSize, 'rows of a tile * vocabulary'),
      derived('gradient of lm_head', sizes.w * model.vocabSize * model.hiddenSize, 'made in forward'),
    ];
  }
  const each = sizes.w + wideLogits * WIDE;
  return [
    states,
    derived('logits', rows * each * model.vocabSize, `${each} B * tokens / ranks * vocabulary: in the model dtype and in fp32`),
  ];
}
