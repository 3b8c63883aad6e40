/** Memory of FPDT as released: chunks of a pair, and between them tensors as long as a rank's tokens. */
import { ON_HOST } from '../../spec/releasedPrograms.js';
import { derived, type MemoryItem } from '../../memory/items.js';
import type { MemoryLedger } from '../../memory/ledger.js';
import { WIDE } from './costs.js';
import { chunksOf, FRAGMENTATION, LOSS_TILES, MLP_TILES } from './fpdtChunks.js';
import { checkpoints, deepSpeedStates, items, pinnedBlock, releasedLedger } from './memory.js';
import type { ReleasedSetting } from './setting.js';

export function fpdtMemory(setting: ReleasedSetting): MemoryLedger {
  const { options, model, tokens, sizes, layer, rows } = setting;
  const { chunks } = chunksOf(setting);
  const { hidden } = items(setting);
  const rotary = derived('rotary table of the whole sequence', 2 * sizes.w * tokens * sizes.d, '2 * tokens * head dim: cosine and sine');
  const kept = [
    hidden('layer input, output and its gradient', options.checkpoints === 'device' ? 2 : 3, 'held by CheckpointFunction.backward'),
    hidden('attention output', sizes.q / sizes.h, 'input of the output projection'),
  ];
  const whole =
    options.checkpoints === 'none'
      ? [
          derived(
            'activations of the other layers',
            (model.numLayers - 1) * rows * sizes.w * (3 * sizes.h + sizes.q),
            'what autograd keeps of a layer',
          ),
        ]
      : checkpoints(setting, 'device');
  const gradients = (elements: number): MemoryItem => derived('fp32 gradients of the module', WIDE * elements, '4 B * its weights');
  return releasedLedger(setting, {
    states: deepSpeedStates(setting),
    device: [rotary],
    pinned: [...checkpoints(setting, ON_HOST), ...chunkedHost(setting)],
    fragmentation: FRAGMENTATION,
    moments: [
      {
        name: 'loss',
        items: [
          ...whole,
          hidden('hidden states, their norm and gradient', 3, ''),
          hidden('joined gradient', 1, 'torch.cat'),
          gradients(sizes.h * sizes.v),
          lossTile(setting),
        ],
      },
      {
        name: 'layerBackward',
        items: [...whole, ...kept, hidden('residual and its norm', 2, ''), mlpTile(setting), gradients(layer.mlp.weightElements)],
      },
      {
        name: 'layerBackward',
        items: [
          ...whole,
          ...kept.slice(0, 1),
          hidden('gradient behind attention', 1, 'of the residual'),
          hidden("gradient of attention's output", sizes.q / sizes.h, 'slices keep all of it alive'),
          hidden('gradient of the norm, in chunks and joined', 2, 'preallocated zeros, then torch.cat'),
          gradients(layer.input.weightElements),
          ...pairItems(setting, chunks),
        ],
      },
      { name: 'optimizerStep', items: [] },
    ],
  });
}

/** Of the layer in backward, in pinned chunks: its norm, q, k, v, o and lse, and in backward gradients of o and, in fp32, of q. */
function chunkedHost(setting: ReleasedSetting): readonly MemoryItem[] {
  const { rows, sizes, tokens } = setting;
  const { chunks } = chunksOf(setting);
  const { h, w, ownQ, ownKv, ownHeads } = sizes;
  const [query, keyValue] = [w * tokens * ownQ, w * tokens * ownKv];
  const tensors = [w * rows * h, query, query, query, (WIDE / w) * query, keyValue, keyValue, WIDE * tokens * ownHeads];
  const bytes = chunks * tensors.reduce((sum, whole) => sum + pinnedBlock(whole / chunks), 0);
  return [derived('chunks of the layer at work', bytes, 'norm, q, o, gradients of o and q, k, v, lse, in blocks of powers of two')];
}

/** Current and next of what is fetched, gradients of a pair, and what attention's backward makes inside. */
function pairItems(setting: ReleasedSetting, chunks: number): readonly MemoryItem[] {
  const { tokens, sizes } = setting;
  const { w, ownQ, ownKv } = sizes;
  const chunkTokens = tokens / chunks;
  const buffers = chunks === 1 ? 1 : 2;
  const query = buffers * (3 * w + WIDE) + w + WIDE + (ownQ === ownKv ? 0 : 2 * w);
  const keyValue = buffers * 2 * w + 2 * WIDE + 2 * w;
  return [
    derived('pair of chunks, queries', chunkTokens * query * ownQ, 'q, o and its gradient, dq in fp32: this and the next; dq of the pair'),
    derived(
      'pair of chunks, keys and values',
      chunkTokens * keyValue * ownKv,
      'k, v: this and the next; their gradients in fp32 and of the pair',
    ),
  ];
}

function mlpTile(setting: ReleasedSetting): MemoryItem {
  const { rows, layer, sizes } = setting;
  const { chunks } = chunksOf(setting);
  return derived(
    'tile of the MLP',
    (rows / (MLP_TILES * chunks)) * sizes.w * 6 * layer.mlpWidth,
    'FPDT_FFN.backward: 6 values of its width at once',
  );
}

function lossTile(setting: ReleasedSetting): MemoryItem {
  const { rows, model, sizes } = setting;
  const { chunks } = chunksOf(setting);
  const each = sizes.w + 3 * WIDE;
  return derived('tile of logits', (rows / (LOSS_TILES * chunks)) * each * model.vocabSize, `${each} B * tokens of a tile * vocabulary`);
}
