/** What NCCL takes of a GPU beyond the first communicator, which every cluster of several GPUs has among its overheads. */
import type { ClusterSpec, RunSpec } from '../spec/types.js';
import type { MemoryItem } from './items.js';

const MIB = 1024 ** 2;
/** On A100s a communicator of two ranks takes 544 MB, one of more 688 MB (nccl issue 964); RCCL 0.65 GiB. */
const COMMUNICATOR_BYTES = 688e6;
/** Point-to-point: channels per peer times receive and send buffers (nccl issue 1685; src/transport/p2p.cc). */
const P2P_CHANNELS = 32;
const P2P_BYTES_PER_CHANNEL = 12 * MIB;
const BUFFERS = 'NCCL all-to-all buffers';

type Sizes = Pick<RunSpec, 'sequenceParallelSize' | 'zeroStage'>;

/**
 * Communicators of a rank: the default group, on which plans are compared and ZeRO-3 gathers and reduces; in other stages DeepSpeed's copy of
 * it (`_clone_world_group`, utils/groups.py); and the sequence parallel group, which exchanges heads. A group of one rank has none, nor has
 * one that nothing is sent on. Counted on running ranks (python/tests/test_communicators.py).
 */
export function numCommunicators({ numRanks }: Pick<ClusterSpec, 'numRanks'>, { sequenceParallelSize, zeroStage }: Sizes): number {
  if (numRanks === 1) return 0;
  return 1 + (zeroStage < 3 ? 1 : 0) + (sequenceParallelSize > 1 ? 1 : 0);
}

/** A cluster's own number of the same name stands in its place. */
export function communicatorItems(cluster: ClusterSpec, run: Sizes): readonly MemoryItem[] {
  if (cluster.device === 'cpu') return [];
  const further = Math.max(0, numCommunicators(cluster, run) - 1);
  // Ranks of a sequence fill a node before they go on to the next.
  const peers = Math.min(run.sequenceParallelSize, cluster.ranksPerNode) - 1;
  const items: readonly MemoryItem[] = [
    {
      name: 'more NCCL communicators',
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
