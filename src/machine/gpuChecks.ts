/** Judges the GPUs of a machine: each alone, and those that share a way to the host. */
import { formatBytes } from '../spec/sizes.js';
import { type Check, fine, warning } from './check.js';
import { parseList, usableGpuBytes } from './derived.js';
import type { GpuFacts, MachineFacts } from './facts.js';

/** What a driver and a display server use; more is another program's. */
const IDLE_BYTES = 1024 ** 3;

export function gpuChecks(facts: MachineFacts): readonly Check[] {
  return [
    driverCheck(facts),
    ...facts.gpus.flatMap((gpu, place) => [gpuCheck(facts, gpu, place), ...troubles(facts, gpu)]),
    ...sharedPortChecks(facts.gpus),
  ];
}

function driverCheck({ driverVersion, gpus, unknown }: MachineFacts): Check {
  const found = driverVersion === null ? `${unknown['driverVersion']}` : `driver ${driverVersion}, ${gpus.length} GPUs`;
  const reason = unknown['gpus'];
  if (reason === undefined) return fine('nvml', found);
  return warning(
    'nvml',
    driverVersion === null ? found : `${found}; ${reason}`,
    'GPUs of NVIDIA need its driver to be loaded: see nvidia-smi',
  );
}

/** What is there, with the reason of what is not known. */
function gpuCheck({ unknown }: MachineFacts, gpu: GpuFacts, place: number): Check {
  const reason = (field: keyof GpuFacts): string => `not known (${unknown[`gpus.${place}.${field}`]})`;
  const total = usableGpuBytes(gpu);
  const found = [
    `${gpu.name ?? `name ${reason('name')}`} at ${gpu.busId ?? reason('busId')}`,
    total === null ? `memory ${reason('memoryTotalBytes')}` : formatBytes(total),
    gpu.pcieGeneration === null || gpu.pcieWidth === null
      ? `PCIe ${reason(gpu.pcieGeneration === null ? 'pcieGeneration' : 'pcieWidth')}`
      : `PCIe ${gpu.pcieGeneration} x${gpu.pcieWidth}`,
    gpu.numNvlinks === null ? `NVLink ${reason('numNvlinks')}` : nvlinkText(gpu, gpu.numNvlinks),
    `NUMA node ${gpu.numaNode ?? reason('numaNode')}`,
    `MIG ${gpu.isMigOn === null ? reason('isMigOn') : onOrOff(gpu.isMigOn)}`,
    `ECC ${gpu.isEccOn === null ? reason('isEccOn') : onOrOff(gpu.isEccOn)}`,
  ];
  return fine(`gpu ${gpu.index}`, found.join(', '));
}

function nvlinkText({ nvlinkPeers }: GpuFacts, numLinks: number): string {
  if (numLinks === 0) return 'no NVLink';
  const kinds = [...new Set(nvlinkPeers.map(({ kind }) => kind))];
  const peers = kinds.map((kind) => `${kind} ${nvlinkPeers.filter((peer) => peer.kind === kind).length}`).join(', ');
  return `${numLinks} NVLinks (peers: ${peers === '' ? 'not known' : peers})`;
}

function onOrOff(isOn: boolean): string {
  return isOn ? 'on' : 'off';
}

function troubles(facts: MachineFacts, gpu: GpuFacts): readonly Check[] {
  const { pcieGeneration, pcieMaxGeneration, pcieWidth, pcieMaxWidth, memoryFreeBytes, isMigOn } = gpu;
  const name = `gpu ${gpu.index}`;
  const used = (usableGpuBytes(gpu) ?? 0) - (memoryFreeBytes ?? 0);
  const found: Check[] = [];
  if (pcieWidth !== null && pcieMaxWidth !== null && pcieWidth < pcieMaxWidth)
    found.push(
      warning(
        name,
        `PCIe has ${pcieWidth} of ${pcieMaxWidth} lanes`,
        'copies to the host are as much slower: reseat the card, look at its slot',
      ),
    );
  if (pcieGeneration !== null && pcieMaxGeneration !== null && pcieGeneration < pcieMaxGeneration)
    found.push(
      warning(
        name,
        `PCIe runs at generation ${pcieGeneration} of ${pcieMaxGeneration}`,
        'an idle GPU saves power so: look again while it copies; if it stays, look at the slot and the BIOS',
      ),
    );
  if (memoryFreeBytes !== null && used > IDLE_BYTES)
    found.push(warning(name, `${formatBytes(used)} are in use`, 'another program runs there: end it, or plan with a lower --hbm-bytes'));
  if (isMigOn === true)
    found.push(
      warning(name, 'MIG is on: a process sees one instance of it', 'nvidia-smi -mig 0, or plan with the --hbm-bytes of an instance'),
    );
  return [...found, ...farCpuChecks(facts, gpu, name)];
}

/** Pinned memory is taken on the node of the CPU that touches it first. */
function farCpuChecks({ cpus, numaNodes }: MachineFacts, { numaNode }: GpuFacts, name: string): readonly Check[] {
  const near = numaNodes.find(({ node }) => node === numaNode)?.cpus ?? null;
  if (near === null || cpus.allowed === null) return [];
  const allowed = new Set(parseList(cpus.allowed));
  if (parseList(near).some((cpu) => allowed.has(cpu))) return [];
  return [
    warning(
      name,
      `on NUMA node ${numaNode}, but this process may run on CPUs ${cpus.allowed} of other nodes only`,
      `copies cross the link between the sockets: allow CPUs of ${near} (taskset, docker --cpuset-cpus)`,
    ),
  ];
}

/** The first bridge below the root complex has one link to the host, which all GPUs below it share. */
function sharedPortChecks(gpus: readonly GpuFacts[]): readonly Check[] {
  const ports = [...new Set(gpus.flatMap(({ pcieBridges }) => pcieBridges?.[1] ?? []))];
  return ports.flatMap((port) => {
    const below = gpus.filter(({ pcieBridges }) => pcieBridges?.[1] === port).map(({ index }) => index);
    if (below.length < 2) return [];
    return [
      warning(
        `gpus ${below.join(', ')}`,
        `share the PCIe port ${port}`,
        `each copies at 1/${below.length} of its rate when all do: measure, or lower h2dBytes and d2hBytes in a cluster file`,
      ),
    ];
  });
}
