/**
 * An optimizer's states on a disk (ZeRO-Infinity, arXiv 2104.07857; runtime/swap_tensor of DeepSpeed 0.19.8): sub-group by sub-group its
 * weight, states and gradient are read into page-locked buffers, updated there and written back.
 */
import { tensorsOf } from '../spec/deepspeedOffload.js';
import { checkpointStaging } from './hostTerms.js';
import { derived, type InstantItem } from './items.js';
import { overModel, pinnedBytes, shardOf, type StateItems, type Terms } from './stateTerms.js';
import { largestSubGroup, subGroups } from './subGroups.js';
import { refusal, type WeightFacts } from './weightsDisk.js';

const FP32 = 4;
export const SWAP_BUFFERS = 'buffers of the disk';

/** Undefined where none are, also for want of a sub-group as large as DeepSpeed writes: then all stay in host memory. */
export function swappedStates(terms: Terms): Required<StateItems> | undefined {
  const { zero, owned, g } = terms;
  const disk = zero.optimizerDisk;
  const subGroup = largestSubGroup(terms);
  if (disk === undefined || FP32 * subGroup < disk.leastBytes) return undefined;
  const { numBuffers, alignmentBytes, bytesPerParameter } = disk;
  const buffer = Math.ceil((FP32 * subGroup) / alignmentBytes) * alignmentBytes;
  const each = `${bytesPerParameter} B * parameters that train / ranks`;
  return {
    device: [derived('fp32 gradients off the disk', unwrittenBytes(terms), '4 B * parameters that DeepSpeed does not write whole')],
    pinned: [
      derived(SWAP_BUFFERS, numBuffers * buffer, `${numBuffers} * 4 B * min(sub_group_size, parameters that train / ranks)`),
      derived('pinned gradients', pinnedBytes(g * owned, terms), `${g} B * parameters that train / ranks`),
      // Beside a GPU the host has it in any case.
      ...(terms.device === 'cpu' ? [checkpointStaging('one block')] : []),
    ],
    file: [derived(`master weights, ${zero.optimizer.label} states, gradients`, bytesPerParameter * owned, each)],
  };
}

/**
 * Gradients in fp32, which are made of others: of a parameter whose share is small, or no whole number of blocks, the tensor is kept until the
 * update for what is not written of it (`_adjust_for_misaligned_lengths`). In fp32 it is a view.
 */
function unwrittenBytes(terms: Terms): number {
  const { zero, g, numRanks } = terms;
  const disk = zero.optimizerDisk;
  if (disk === undefined || g === FP32) return 0;
  return overModel(terms, (views) =>
    views.reduce((sum, { numel, trainable }) => {
      const bytes = FP32 * Math.ceil(numel / numRanks);
      const isWritten = bytes >= disk.leastBytes && bytes % disk.alignmentBytes === 0;
      return trainable && !isWritten ? sum + bytes : sum;
    }, 0),
  );
}

/** Throws an FpdtError for buffers that DeepSpeed would run out of in its first update, or its second one. */
export function refuseTooFewBuffers(facts: WeightFacts): void {
  const disk = facts.zero.optimizerDisk;
  if (disk === undefined) return;
  const numOnDisk = subGroups(facts).filter((group) => FP32 * shardOf(group, facts.numRanks) >= disk.leastBytes).length;
  const together = Math.min(disk.numAtOnce, numOnDisk);
  const needed = together * tensorsOf(disk);
  if (disk.numBuffers >= needed) return;
  const text = `${disk.numBuffers} do not hold ${together} sub-groups, which pipeline_read and pipeline_write have in memory together`;
  throw refusal('offload_optimizer.buffer_count', text, needed);
}

/** The first update makes the states of a sub-group in memory of their own. */
export function firstSwappedStep(elements: number, { zero }: Terms): InstantItem {
  const { updateBytes, stateBytes, label } = zero.optimizer;
  const each = updateBytes + stateBytes;
  const note = `${each} B * min(sub_group_size, parameters that train / ranks): temporaries, and ${label} states that are made`;
  return { ...derived('optimizer temporaries', each * elements, note), pinned: true };
}
