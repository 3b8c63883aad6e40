/**
 * FPDT (arXiv 2408.16978) as released: DeepSpeed's `sequence/fpdt_layer.py` in Megatron-DeepSpeed. Attention, MLP and loss go chunk by
 * chunk; what stands between them is as long as a rank's tokens. Without chunked attention it is Ulysses in the same program.
 */
import { sharesHeads } from '../../spec/parallelism.js';
import { ON_HOST } from '../../spec/releasedPrograms.js';
import {
  attentionFlops,
  attentionSeconds,
  BACKWARD_ATTENTION,
  checkpointBytes,
  exchange,
  hostWriteSeconds,
  logitsPart,
  type MicroStep,
  productSeconds,
  stepTerms,
  term,
  type TimeTerm,
  trafficSeconds,
  waitedCopySeconds,
  WIDE,
} from './costs.js';
import { CHUNK_TOKENS, chunksOf, FRAGMENTATION, LOSS_TILES, MLP_TILES } from './fpdtChunks.js';
import { fpdtMemory } from './fpdtMemory.js';
import type { ReleasedProgram } from './program.js';
import { type ReleasedSetting, ULYSSES_HEADS } from './setting.js';
import { ulysses, type UlyssesStyle } from './ulysses.js';

/** Kernels between two waits of the host: attention's and those of the merge, or zeros, attention's and three sums. */
const KERNELS_OF_PAIR = 14;
/** One kernel a statement of FPDT_FFN.backward: values that are read or written. */
const MLP_BACKWARD_PASSES = 45;

export const fpdt: ReleasedProgram = {
  facts: {
    defaults: { checkpoints: ON_HOST, chunkedAttention: true, offloadWeights: false },
    kernels: ['flash2'],
    ...ULYSSES_HEADS,
    sharding: 'ZeRO',
    takesWindows: false,
  },
  memory: (setting) => (setting.options.chunkedAttention ? fpdtMemory(setting) : ulysses.memory(setting, MEGATRON)),
  micro: (setting) => (setting.options.chunkedAttention ? micro(setting) : ulysses.micro(setting, MEGATRON)),
  step: (setting) => stepTerms(fpdt.micro(setting), setting),
  remarks,
};

/** GPT layers of Megatron-DeepSpeed: fused norms and activations, logits of all of a rank's tokens at once. */
const MEGATRON: UlyssesStyle = {
  fused: true,
  // vocab_sequence_parallel_cross_entropy: the cast, its softmax, and the logarithm of that.
  wideLogits: 3,
  fragmentation: FRAGMENTATION,
  copies: 'deepspeed.checkpointing with checkpoint_in_cpu: not pinned, waited for',
};

/** ds_pretrain_gpt_6.7B_fpdt_32k.sh: gpt2-vocab.json, padded to a multiple of 128. */
const SCRIPT_VOCABULARY = 50304;

function remarks(setting: ReleasedSetting): readonly string[] {
  const { options, model, run, tokens, layer } = setting;
  const vocabulary =
    model.vocabSize <= SCRIPT_VOCABULARY
      ? []
      : [
          `the released script trains with a vocabulary of ${SCRIPT_VOCABULARY}, this model has ${model.vocabSize}: its logits are larger by so much`,
        ];
  // single_all_to_all: unequal numbers of heads are for more key/value heads than ranks, and none is copied.
  const copies = sharesHeads(run.sequenceParallelSize, model)
    ? []
    : ['FPDT as released takes no fewer key/value heads than ranks to a sequence; copies of them are assumed'];
  if (!options.chunkedAttention) return [...vocabulary, ...copies];
  return [
    ...vocabulary,
    ...copies,
    ...(layer.mlpFirst.weightElements > layer.mlp.weightElements / 2
      ? [`FPDT_FFN as released has no gated MLP; ${model.family}'s is taken to be cut and recomputed like its own`]
      : []),
    ...(tokens % CHUNK_TOKENS === 0
      ? []
      : [`FPDT as released takes multiples of ${CHUNK_TOKENS} tokens; chunks here are ${tokens / chunksOf(setting).chunks}`]),
  ];
}

function micro(setting: ReleasedSetting): MicroStep {
  const { model, layer, options, rows } = setting;
  const { chunks, pairs, times } = chunksOf(setting);
  const layers = model.numLayers;
  const attention = attentionFlops(setting);
  const logits = logitsPart(setting);
  const terms: readonly TimeTerm[] = [
    ...attentionTerms(setting),
    ...productTerms(setting),
    ...elementwise(setting),
    ...exchanges(setting),
    term(
      'checkpoints to the host and back',
      options.checkpoints === ON_HOST ? waitedCopySeconds(checkpointBytes(setting), false, setting) : 0,
      MEGATRON.copies,
    ),
  ];
  const products =
    layers * (times + 2) * (layer.input.flops + layer.output.flops + layer.mlp.flops) + layers * layer.mlpFirst.flops + 4 * logits.flops;
  const perLayer = pairs * KERNELS_OF_PAIR * (times + 1) + chunks * MLP_TILES * (5 * times + MLP_BACKWARD_PASSES);
  return {
    terms,
    kernels: layers * perLayer + 2 * LOSS_TILES * chunks * 12,
    productFlops: products * rows,
    attentionFlops: (times + BACKWARD_ATTENTION) * attention,
  };
}

/** What is computed pair by pair, and what copies and waits add to a pair: the host waits for both streams behind each of them. */
function attentionTerms(setting: ReleasedSetting): readonly TimeTerm[] {
  const { model, cluster, sizes } = setting;
  const { rates } = cluster;
  const { chunks, pairs, chunkTokens, times } = chunksOf(setting);
  const layers = model.numLayers;
  const flops = attentionFlops(setting);
  const forward = attentionSeconds(flops, layers * pairs * chunkTokens, setting, 'forward');
  const backward = attentionSeconds(flops, layers * pairs * chunkTokens, setting, 'backward');
  const { ownQ, ownKv, ownHeads, w } = sizes;
  // _update_out_and_lse: a cast, two exponentials times fp32 outputs and their sum; five passes over lse, of three numbers each.
  const merged =
    (pairs - chunks) * chunkTokens * ((w + 7 * WIDE) * ownQ + 15 * WIDE * ownHeads) + chunks * chunkTokens * 2 * (w + WIDE) * ownQ;
  const summed = pairs * chunkTokens * (2 * w + 2 * WIDE) * (ownQ + 2 * ownKv);
  const merges = layers * trafficSeconds(merged, setting);
  const sums = layers * trafficSeconds(summed, setting);
  const loaded = chunkTokens * (3 * w + WIDE) * ownQ;
  const stored = chunkTokens * WIDE * ownQ;
  const shared = rates.duplexBytes > 0 ? (loaded + stored) / rates.duplexBytes : 0;
  const backwardCopy = Math.max(loaded / rates.h2dBytes, stored / rates.d2hBytes, shared);
  const forwardCopy = (2 * w * chunkTokens * ownKv) / rates.h2dBytes;
  const exposed = (copy: number, all: number): number => layers * pairs * Math.max(0, copy - all / (layers * pairs));
  return [
    term('attention forward', times * forward, `${times} times, ${pairs} pairs of chunks a layer, ${setting.kernel}`),
    term('attention backward', backward, `${pairs} pairs of chunks a layer, ${setting.kernel}`),
    term('merging partial outputs', times * merges, '_update_out_and_lse, kernel by kernel in fp32'),
    term('summing gradients of pairs', sums, 'zeros, then sums in fp32'),
    term(
      'copies of chunks, exposed',
      times * exposed(forwardCopy, forward + merges) + exposed(backwardCopy, backward + sums),
      'one pair ahead',
    ),
    term(
      'host waits',
      layers * pairs * (times + 1) * KERNELS_OF_PAIR * rates.hostSecondsPerKernel,
      'stream.synchronize() behind every pair: its kernels are issued while the device is idle',
    ),
    term(
      'dq zeroed on the host',
      layers * hostWriteSeconds((chunks - 1) * chunkTokens * WIDE * ownQ, setting),
      'torch.empty(...).zero_() a chunk',
    ),
  ];
}

function productTerms(setting: ReleasedSetting): readonly TimeTerm[] {
  const { model, layer, rows, sizes } = setting;
  const { chunks, times } = chunksOf(setting);
  const layers = model.numLayers;
  const tiles = MLP_TILES * chunks;
  const logits = logitsPart(setting);
  const mlp = productSeconds(layer.mlp, rows, times + 2, tiles, setting) + productSeconds(layer.mlpFirst, rows, 1, tiles, setting);
  const input = productSeconds(layer.input, rows, times + 2, chunks, setting);
  // A product in the model dtype is read and added to its fp32 region.
  const sums =
    layers * (chunks * layer.input.weightElements + tiles * layer.mlp.weightElements) + LOSS_TILES * chunks * logits.weightElements;
  return [
    term('projections', layers * (input + productSeconds(layer.output, rows, times + 2, 1, setting)), `${times + 2} times`),
    term('MLP', layers * mlp, `FPDT_FFN: ${times + 2} times, its first products once more, in ${tiles} tiles`),
    term('logits', productSeconds(logits, rows, 4, LOSS_TILES * chunks, setting), 'FPDT_LogitsLoss: once more in backward'),
    term('sums of weight gradients', trafficSeconds(sums * (sizes.w + 2 * WIDE), setting), 'in fp32, tile by tile'),
  ];
}

/** Norms, residuals, slices of q, k, v and rotation; the MLP's in as many kernels as statements; passes over fp32 logits. */
function elementwise(setting: ReleasedSetting): readonly TimeTerm[] {
  const { model, rows, layer, sizes } = setting;
  const { times } = chunksOf(setting);
  const { h, q, kv, w } = sizes;
  const forward = 10 * h + 4 * (q + 2 * kv) + 8 * (q + kv) + 4 * q + 4 * layer.mlpWidth;
  const backward = 12 * h + 4 * (q + 2 * kv) + 8 * (q + kv) + 13 * h + MLP_BACKWARD_PASSES * layer.mlpWidth;
  const logits = 2 * (2 * w + 2 * WIDE) + 8 * WIDE;
  return [
    term(
      'element-wise kernels',
      trafficSeconds(model.numLayers * rows * w * (times * forward + backward), setting),
      'passes over values of a layer',
    ),
    term(
      'loss, element-wise',
      trafficSeconds(rows * model.vocabSize * logits, setting),
      'FPDT_LogitsLoss: softmax, log and gradient in fp32',
    ),
    term('last hidden states over the host', waitedCopySeconds(rows * w * h, false, setting), "FPDT_LogitsLoss: lm_output.to('cpu')"),
  ];
}

/** Six and eight blocking all-to-alls a chunk, with two copies each, and barriers of all ranks. */
function exchanges(setting: ReleasedSetting): readonly TimeTerm[] {
  const { model, tokens, sizes, run, cluster } = setting;
  if (run.sequenceParallelSize === 1) return [];
  const { chunks, times } = chunksOf(setting);
  const bytes = tokens * sizes.w * (2 * sizes.ownQ + 2 * sizes.ownKv);
  const all = model.numLayers * (times + 1);
  return [
    term(
      'all-to-all',
      all * exchange(bytes, 4 * chunks, setting),
      'q, k, v and o, or their gradients, chunk by chunk; nothing beside them',
    ),
    term('permuting around all-to-all', trafficSeconds(all * 2 * 2 * bytes, setting), '2 copies of each tensor'),
    term('barriers', all * chunks * 2 * cluster.rates.commLatencySeconds, 'dist.barrier() of all ranks a chunk'),
  ];
}
