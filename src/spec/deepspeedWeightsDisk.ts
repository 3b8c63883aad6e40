/** offload_param to nvme: under ZeRO-3 a rank's share of the weights is on a disk of its host, and is read to be gathered. */
import { diskBlocks, type DiskBlocks, diskProblem, inSection, isOnDisk } from './deepspeedDisk.js';
import type { Problem } from './deepspeedReport.js';
import { secondaryGroupSize } from './deepspeedSecondary.js';
import { type JsonObject, valueIn } from './parseJson.js';
import type { ClusterSpec } from './types.js';

const SECTION = 'offload_param';

/** How DeepSpeed's AsyncPartitionedParameterSwapper moves weights (runtime/swap_tensor/partitioned_param_swapper.py). */
export interface WeightsDisk extends DiskBlocks {
  /** Page-locked buffers of so many elements, through which weights are read and written. */
  readonly numBuffers: number;
  readonly bufferElements: number;
  /** As many elements of what trains may stay in host memory, of whole sub-groups. */
  readonly hostElements: number;
}

/** Undefined where weights are elsewhere. */
export function weightsDisk(config: JsonObject): WeightsDisk | undefined {
  if (!isOnDisk(config, SECTION)) return undefined;
  const number = (key: string, fallback: number): number => Number(inSection(config, SECTION, key) ?? fallback);
  return {
    ...diskBlocks(config),
    numBuffers: number('buffer_count', 5),
    bufferElements: number('buffer_size', 1e8),
    hostElements: number('max_in_cpu', 1e9),
  };
}

/** What DeepSpeed would fail on when it has the first weight, or does in another way than is planned. */
export function weightsDiskProblems(config: JsonObject, { numRanks }: Pick<ClusterSpec, 'numRanks'>): readonly Problem[] {
  const disk = weightsDisk(config);
  if (disk === undefined) return [];
  return [
    ...(disk.numBuffers > 0
      ? []
      : [
          diskProblem(SECTION, '.buffer_count', [
            ': a weight needs a buffer to go to the disk by',
            'invalid-value',
            'buffer_count=5 works',
          ]),
        ]),
    ...refused(secondaryGroupSize(config, numRanks) !== undefined, 'zero_optimization.zero_hpz_partition_size', {
      text: ': DeepSpeed cannot make a second partition of weights that are on a disk',
      hint: 'leave it out, or use offload_param device "cpu"',
    }),
    ...refused(valueIn(config, ['aio', 'use_gds']) === true, 'aio.use_gds', {
      text: ': true is not supported: buffers are planned in host memory',
      hint: 'set it to false',
    }),
    // It reads a whole sub-group into one of the buffers, at offsets that are no multiples of a block.
    ...refused(isOnDisk(config, 'offload_optimizer') && inSection(config, 'offload_optimizer', 'fast_init') === true, FAST_INIT, {
      text: ': true is not supported where weights are on a disk too',
      hint: 'set it to false: master weights are then made one by one',
    }),
  ];
}

const FAST_INIT = 'zero_optimization.offload_optimizer.fast_init';

function refused(isSo: boolean, path: string, said: Pick<Problem, 'text' | 'hint'>): readonly Problem[] {
  return isSo ? [{ path, ...said, code: 'unsupported', details: { path } }] : [];
}
