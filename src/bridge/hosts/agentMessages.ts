/**
 * What a controller and the agents of other hosts tell each other: a JSON frame, and after it the frames that it speaks of. Messages of ranks are
 * passed on as they are. Both ends are this package, in the same version.
 */

import * as z from 'zod';
import { parseJson } from '../protocol.js';

const count = z.int().nonnegative();
const key = z.string().length(40);

/** What an agent is told before anything else, on its standard input: nobody else can read it there, unlike a command line. */
export const ticketSchema = z.strictObject({
  kind: z.literal('fpdtAgentTicket'),
  version: z.string(),
  run: z.string(),
  /** The controller's, as this host reaches it. */
  endpoint: z.string().regex(/^tcp:\/\/.+:\d+$/),
  serverKey: key,
  publicKey: key,
  secretKey: key,
  /** Number of its host, from 0; null: what Slurm says. */
  node: count.nullable(),
  /** Of the controller: paths of the run's options begin there. */
  folder: z.string(),
});
export type Ticket = z.infer<typeof ticketSchema>;

export const fromAgentSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('hello'),
    version: z.string(),
    node: count,
    host: z.string(),
    pid: count,
    /** As the controller sees this host, and a port that is free there. */
    address: z.string(),
    port: count,
    numProcessors: count,
    numGpus: count.nullable(),
  }),
  z.strictObject({ type: z.literal('started'), rank: count, pid: count.nullable() }),
  z.strictObject({ type: z.literal('line'), rank: count, stream: z.enum(['stdout', 'stderr']), line: z.string() }),
  z.strictObject({
    type: z.literal('exited'),
    rank: count,
    code: z.int().nullable(),
    signal: z.string().nullable(),
    startError: z.string().nullable(),
  }),
  /** Its output has ended. */
  z.strictObject({ type: z.literal('closed'), rank: count }),
  /** Frames: identity of the rank, envelope. */
  z.strictObject({ type: z.literal('control') }),
  /** Frame: a batch. */
  z.strictObject({ type: z.literal('telemetry') }),
  /** The agent cannot do what it is for. */
  z.strictObject({ type: z.literal('failed'), message: z.string(), hint: z.string().nullable() }),
  /** The answer to `end`; groups of processes that survived SIGKILL. */
  z.strictObject({ type: z.literal('ended'), left: z.array(count) }),
]);
export type FromAgent = z.infer<typeof fromAgentSchema>;

export const toAgentSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('start'),
    ranks: z.array(z.strictObject({ rank: count, localRank: count })),
    numRanks: z.int().positive(),
    device: z.enum(['cpu', 'cuda']),
    /** Devices that the ranks may see; null: as the host has it. */
    slots: z.array(count).nullable(),
    /** Null: that of the agent's host. */
    python: z.string().nullable(),
    worker: z.string(),
    /** On top of the agent's own. */
    environment: z.record(z.string(), z.string()),
    masterAddress: z.string(),
    masterPort: z.int().positive(),
  }),
  /** Frames: identity of the rank, envelope, and what comes with it. */
  z.strictObject({ type: z.literal('control') }),
  /** Stop the ranks for good, answer, and leave. */
  z.strictObject({ type: z.literal('end') }),
]);
export type ToAgent = z.infer<typeof toAgentSchema>;

/** Null where it is none. */
export function parseAs<T extends z.ZodType>(schema: T, frame: Uint8Array | undefined): z.infer<T> | null {
  const json = frame === undefined ? null : parseJson(frame);
  if (json === null || 'reason' in json) return null;
  return schema.safeParse(json.value).data ?? null;
}
