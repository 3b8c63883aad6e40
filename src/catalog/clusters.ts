/** From a cluster input to a ClusterSpec, by device catalog. */
import { readClusterInput, type ShortClusterInput } from '../spec/clusterSpec.js';
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import type { JsonObject } from '../spec/parseJson.js';
import type { ClusterSpec } from '../spec/types.js';
import { ALL_DEVICES, DEVICE_NAMES } from './devices.js';
import { type DeviceEntry, GIB } from './gpus.js';
import { ATTENTION_KERNELS, kernelNamed } from './kernels.js';
import { catalogOrigins } from './rateOrigins.js';

/** Of a cluster's overheads. */
export const FIRST_COMMUNICATOR = 'NCCL communicator';

/** `{gpus, gpu}` of the catalog, a full ClusterSpec, or the path of a JSON file with either. */
export function parseCluster(input: string | JsonObject): ClusterSpec {
  const cluster = readClusterInput(input);
  checkInstalled(cluster.installedKernels ?? []);
  return 'kind' in cluster ? cluster : fromCatalog(cluster);
}

/** Throws `unknown-kernel`, and `invalid-value` for a kernel that is not installed but comes with PyTorch. */
function checkInstalled(names: readonly string[]): void {
  const builtIn = names.find((name) => kernelNamed(name).package === undefined);
  if (builtIn === undefined) return;
  const packaged = ATTENTION_KERNELS.filter((kernel) => kernel.package !== undefined).map(({ name }) => name);
  throw new FpdtError(`cluster.installedKernels: PyTorch has '${builtIn}' by itself`, {
    code: 'invalid-value',
    hint: `leave it out; packages bring ${packaged.join(' and ')}`,
  });
}

function fromCatalog({
  gpus,
  gpu,
  installedKernels,
  float16,
  ranksPerNode,
  hbmBytes,
  hostBytes,
  diskBytes,
}: ShortClusterInput): ClusterSpec {
  const entry = entryNamed(gpu);
  const perNode = Math.min(gpus, ranksPerNode ?? entry.ranksPerNode);
  return {
    kind: 'cluster',
    name: `${gpus}x ${entry.name}`,
    device: entry.device,
    ...(entry.architecture === undefined ? {} : { architecture: entry.architecture }),
    ...(installedKernels === undefined ? {} : { installedKernels }),
    ...(float16 === undefined ? {} : { float16 }),
    numRanks: gpus,
    ranksPerNode: perNode,
    hbmBytes: hbmBytes ?? entry.hbmBytes,
    hostBytes: hostBytes ?? entry.hostBytes,
    diskBytes: diskBytes ?? 0,
    overheads: entry.device === 'cuda' ? overheads(entry, gpus) : [],
    rates: { ...entry.rates, offloadedOptimizerSecondsPerParameter: perNode * entry.nodeOptimizerSecondsPerParameter },
    ratesProvenance: entry.ratesProvenance,
    rateOrigins: catalogOrigins(entry.name),
    ratesSource: entry.ratesSource,
    peakFlops: entry.peakFlops,
  };
}

/** By its name, by its chip where one entry has that (`h100` for `h100-80gb`), or by how one name begins. */
export function entryNamed(name: string): DeviceEntry {
  const chip = (entry: DeviceEntry): string => entry.name.replace(/-\d+gb$/, '');
  const rules: readonly ((entry: DeviceEntry) => boolean)[] = [
    (entry) => entry.name === name,
    (entry) => chip(entry) === name,
    (entry) => name !== '' && entry.name.startsWith(name),
  ];
  for (const rule of rules) {
    const [entry, ...others] = ALL_DEVICES.filter(rule);
    if (entry !== undefined && others.length === 0) return entry;
    if (entry !== undefined) {
      throw new FpdtError(`cluster.gpu: '${name}' may be one of ${others.length + 1} devices`, {
        code: 'unknown-device',
        hint: `say which: ${[entry, ...others].map((one) => one.name).join(', ')}`,
      });
    }
  }
  const nearest = nearestKey(name, DEVICE_NAMES);
  throw new FpdtError(`cluster.gpu: unknown device '${name}'`, {
    code: 'unknown-device',
    hint: `${nearest === undefined ? '' : `did you mean '${nearest}'? `}known: ${DEVICE_NAMES.join(', ')}`,
  });
}

/** What a rank has before a plan. What its groups take beyond a first communicator is the run's (memory/communicators.ts). */
function overheads(entry: DeviceEntry, numRanks: number): ClusterSpec['overheads'] {
  const context = {
    name: 'CUDA context and modules',
    bytes: 0.9 * GIB,
    provenance: 'assumed',
    source: '0.47 GiB lazy to 0.92 GiB eager (stas00/ml-engineering)',
  } as const;
  const cublas = {
    name: 'cuBLAS workspaces',
    bytes: 2 * entry.cublasWorkspaceBytes,
    provenance: 'derived',
    source: 'one per handle: the forward and the autograd thread (torch 2.13)',
  } as const;
  if (numRanks === 1) return [context, cublas];
  const communicator = {
    name: FIRST_COMMUNICATOR,
    bytes: 1.5 * GIB,
    provenance: 'assumed',
    source: 'first collective, with its kernels: 0.55 to 2.00 GiB in use on 2 GPUs (stas00/ml-engineering)',
  } as const;
  return [context, cublas, communicator];
}
