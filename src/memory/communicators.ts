/** What NCCL takes of a GPU beyond the first communicator, which every cluster of several GPUs has among its overheads. */
import { FIRST_COMMUNICATOR } from '../catalog/clusters.js';
import { secondaryGroupSize } from '../spec/deepspeedSecondary.js';
import type { ClusterSpec, DeepSpeedConfig, RunSpec } from '../spec/types.js';
import { type MemoryItem, sumBytes } from './items.js';

const MIB = 1024 ** 2;
/** On A100s a communicator of two ranks takes 544 MB, one of more 688 MB (nccl issue 964); RCCL 0.65 GiB. */
const COMMUNICATOR_BYTES = 688e6;
/** Point-to-point: channels per peer times receive and send buffers (nccl issue 1685; src/transport/p2p.cc). */
const P2P_CHANNELS = 32;
const P2P_BYTES_PER_CHANNEL = 12 * MIB;
const MORE = 'more NCCL communicators';
const BUFFERS = 'NCCL all-to-all buffers';

type Sizes = Pick<RunSpec, 'sequenceParallelSize'>;

/**
 * Communicators of a rank: the default group, on which plans are compared and ZeRO gathers and reduces, and the sequence parallel group,
 * which exchanges heads, where it is another; under hpZ also that of its gathers in backward, which DeepSpeed makes anew for all ranks too.
 * A group of one rank has none. Counted on running ranks (python/tests/test_communicators.py).
 */
export function numCommunicators(
  { numRanks }: Pick<ClusterSpec, 'numRanks'>,
  { sequenceParallelSize }: Sizes,
  deepspeed: DeepSpeedConfig = {},
): number {
  if (numRanks === 1) return 0;
  const exchanges = sequenceParallelSize > 1 && sequenceParallelSize < numRanks;
  return 1 + Number(exchanges) + Number(secondaryGroupSize(deepspeed, numRanks) !== undefined);
}

/** A cluster's own number of the same name stands in its place. `count`: of a program that has others. */
export function communicatorItems(cluster: ClusterSpec, run: Sizes, count = numCommunicators(cluster, run)): readonly MemoryItem[] {
  if (cluster.device === 'cpu') return [];
  const further = Math.max(0, count - 1);
  // Ranks of a sequence fill a node before they go on to the next.
  const peers = Math.min(run.sequenceParallelSize, cluster.ranksPerNode) - 1;
  const items: readonly MemoryItem[] = [
    {
      name: MORE,
      bytes: further * COMMUNICATOR_BYTES,
      provenance: 'assumed',
      note: `${further} beside the first, of 688 MB as on A100s (nccl issue 964)`,
    },
    {
      name: BUFFERS,
      bytes: peers * P2P_CHANNELS * P2P_BYTES_PER_CHANNEL,
      provenance: 'assumed',
      note: `${peers} peers * 32 channels * 12 MiB; +3.3 GiB seen on 8 H100 (nccl issue 1685); cut by NCCL_MAX_P2P_NCHANNELS`,
    },
  ];
  return items.filter(({ name, bytes }) => bytes > 0 && !cluster.overheads.some((own) => own.name === name));
}

/** What a ledger has for all of them, of the device. */
export function communicatorBytes(persistent: readonly MemoryItem[]): number {
  const names = [FIRST_COMMUNICATOR, MORE, BUFFERS];
  return sumBytes(persistent.filter(({ name }) => names.includes(name)));
}
