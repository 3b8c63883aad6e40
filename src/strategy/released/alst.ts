/**
 * ALST (arXiv 2506.13996): Hugging Face's modules under ArcticTraining, whose recipes for it are in projects/sequence-parallelism, with
 * Liger's fused kernels, TiledMLP of DeepSpeed's ulysses_sp.py, and checkpoints on the host. PYTORCH_CUDA_ALLOC_CONF has expandable segments.
 */
import { ON_HOST } from '../../spec/releasedPrograms.js';
import { stepTerms } from './costs.js';
import type { ReleasedProgram } from './program.js';
import { type ReleasedSetting, ULYSSES_HEADS } from './setting.js';
import { ulysses, type UlyssesStyle } from './ulysses.js';

export const alst: ReleasedProgram = {
  facts: {
    defaults: { checkpoints: ON_HOST, tiledLoss: true, tiledMlp: true, offloadWeights: false },
    kernels: ['flash2'],
    // UlyssesSPAttentionHF: key/value heads are copied where there are fewer than ranks.
    ...ULYSSES_HEADS,
    sharding: 'ZeRO',
    takesWindows: true,
  },
  memory: (setting) => ulysses.memory(setting, styleOf(setting)),
  micro: (setting) => ulysses.micro(setting, styleOf(setting)),
  step: (setting) => stepTerms(alst.micro(setting), setting),
  remarks: () => [],
};

/** `type: liger` of a recipe brings the tiled loss and the fused kernels together. loss_utils.py: log-softmax and two gradients in fp32. */
function styleOf({ options }: ReleasedSetting): UlyssesStyle {
  return {
    fused: options.tiledLoss,
    wideLogits: 3,
    fragmentation: 0,
    copies: 'arctic_training/monkey_patches.py, CheckpointFunctionWithCPUOffload: .cpu() and .to(device), not pinned, waited for',
  };
}
