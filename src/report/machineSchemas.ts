/** Schemas of what `fpdt doctor` and `fpdt setup` print with --json. */
import * as z from 'zod';
import type { Check } from '../machine/check.js';
import type {
  CgroupFacts,
  CpuFacts,
  GpuFacts,
  MachineFacts,
  MemlockFacts,
  MemoryFacts,
  NumaNodeFacts,
  NvlinkPeer,
} from '../machine/facts.js';
import type { Shape } from '../plan/headerSpecs.js';
import type { SetupResult } from '../setup/setup.js';

const option = z.exactOptional;
const limit = z.union([z.number(), z.literal('unlimited')]).nullable();
const fact = z.number().nullable();
const word = z.string().nullable();

const checkSchema = z.strictObject({
  name: z.string(),
  status: z.enum(['ok', 'warning', 'missing']),
  found: z.string(),
  hint: option(z.string()),
} satisfies Shape<Check>);

const gpuSchema = z.strictObject({
  index: z.number(),
  name: word,
  memoryTotalBytes: fact,
  memoryReservedBytes: fact,
  memoryFreeBytes: fact,
  busId: word,
  pcieGeneration: fact,
  pcieMaxGeneration: fact,
  pcieWidth: fact,
  pcieMaxWidth: fact,
  pcieBridges: z.array(z.string()).nullable(),
  numaNode: fact,
  numNvlinks: fact,
  nvlinkPeers: z.array(
    z.strictObject({
      busId: z.string(),
      kind: z.enum(['gpu', 'switch', 'other', 'unknown']),
      numLinks: z.number(),
    } satisfies Shape<NvlinkPeer>),
  ),
  isMigOn: z.boolean().nullable(),
  isEccOn: z.boolean().nullable(),
} satisfies Shape<GpuFacts>);

const factsSchema = z.strictObject({
  kind: z.literal('machineFacts'),
  driverVersion: word,
  gpus: z.array(gpuSchema),
  numaNodes: z.array(
    z.strictObject({ node: z.number(), cpus: word, memoryTotalBytes: fact, memoryFreeBytes: fact } satisfies Shape<NumaNodeFacts>),
  ),
  memory: z.strictObject({
    totalBytes: fact,
    availableBytes: fact,
    hugePageBytes: fact,
    numHugePages: fact,
    numFreeHugePages: fact,
    transparentHugePages: word,
  } satisfies Shape<MemoryFacts>),
  cgroup: z.strictObject({ memoryLimitBytes: limit, cpuLimit: limit } satisfies Shape<CgroupFacts>),
  cpus: z.strictObject({ online: word, allowed: word } satisfies Shape<CpuFacts>),
  memlock: z.strictObject({ softBytes: limit, hardBytes: limit } satisfies Shape<MemlockFacts>),
  unknown: z.record(z.string(), z.string()),
} satisfies Shape<MachineFacts>);

/** What `fpdt doctor` found. `ok`: nothing that a run needs is missing; `facts`: null without the native addon. */
export const doctorSchema = z.strictObject({
  kind: z.literal('doctor'),
  version: z.string(),
  ok: z.boolean(),
  checks: z.array(checkSchema),
  facts: factsSchema.nullable(),
});

export const setupSchema = z.strictObject({
  kind: z.literal('setup'),
  folder: word,
  python: z.string(),
  torch: z.string(),
  wasThere: z.boolean(),
  hasAddon: z.boolean(),
} satisfies Shape<SetupResult>);
