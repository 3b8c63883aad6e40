/**
 * The control protocol between the controller and its ranks: one strict envelope per message, one body per type.
 *
 * Twin of python/fpdt/wire/protocol.py; both read test/fixtures/wire. The JSON Schema in schemas/ is generated from here.
 */

import { randomUUID } from 'node:crypto';
import * as z from 'zod';
import { runOptionsSchema } from './runOptions.js';

/** Bumped only when an older worker could misread a message. */
export const PROTOCOL_VERSION = 2;

const PHASES = ['starting', 'waiting', 'loading', 'stepping', 'evaluating', 'saving', 'exporting', 'closing'] as const;
export const phaseSchema = z.enum(PHASES);
export type Phase = z.infer<typeof phaseSchema>;

const count = z.int().nonnegative();
const seconds = z.number().nonnegative();
const digest = z.string().regex(/^[0-9a-f]{64}$/);
const runId = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/);

/** One frame after the envelope: the plan's header, its prose, then its columns in the header's order. */
const frameSchema = z.strictObject({
  name: z.string(),
  /** Of the elements of a column. */
  dtype: z.enum(['json', 'uint8', 'int16', 'uint16', 'int32', 'int64']),
  /** As they travel: columns are deflated. */
  bytes: count,
});
export type FrameDescriptor = z.infer<typeof frameSchema>;

const kindTimeSchema = z.strictObject({ count, seconds });

/** What a rank says about one finished step. `nonFinite` names the numbers that were NaN or infinite and are null. */
const stepDoneSchema = z.strictObject({
  step: count,
  /** Mean token loss of the whole batch, equal on all ranks. */
  loss: z.number().nullable(),
  /** That of the update; null where the optimizer has none. */
  learningRate: z.number().nullable(),
  /** Of the gradients of all ranks before clipping; null where DeepSpeed does not form it, or it is not finite. */
  gradientNorm: z.number().nonnegative().nullable(),
  seconds,
  /** Valid target tokens of the whole optimizer step, all ranks together. */
  numTokens: count,
  /** What the loss was multiplied by, and its gradients divided by before the update. */
  lossScale: z.number().positive(),
  /** The weights stayed as they were: a gradient of some rank was not finite. */
  skipped: z.boolean(),
  /** High water by pool. */
  poolBytes: z.record(z.string(), count),
  /** Whether `poolBytes` is of this step; else it is of an earlier one, or empty. */
  memoryMeasured: z.boolean(),
  /** By stream of the copies. */
  copiedBytes: z.record(z.string(), count),
  /** Empty where ops were not timed. */
  byKind: z.record(z.string(), kindTimeSchema),
  /** Time of the step in no timed op, measured as the gaps between them; 0 where ops were not timed. */
  idleSeconds: seconds,
  /** Whether `byKind` and `idleSeconds` were measured. A CPU times the ops of every step, a GPU those of some. */
  opsTimed: z.boolean(),
  nonFinite: z.array(z.string()),
  /** The rank and position where the first of them came from, as far as somebody looked. */
  nonFinitePlace: z.string().nullable(),
});
export type StepDone = z.infer<typeof stepDoneSchema>;

/** What a rank says about an evaluation. `nonFinite` names the numbers that were NaN or infinite and are null. */
const evaluatedSchema = z.strictObject({
  digest,
  /** Steps that had been done. */
  step: count,
  /** Mean token loss of all sequences, equal on all ranks. */
  loss: z.number().nullable(),
  /** Valid target tokens, and sequences, of all replicas together. */
  numTokens: z.int().positive(),
  numSequences: z.int().positive(),
  seconds,
  nonFinite: z.array(z.string()),
});
export type Evaluated = z.infer<typeof evaluatedSchema>;

const BODIES = {
  hello: z.strictObject({
    /** Oldest and newest protocol the rank speaks. */
    protocol: z.tuple([count, count]),
    /** Version of the fpdt Python package. */
    version: z.string(),
    pid: z.int().positive(),
    python: z.string(),
    capabilities: z.array(z.string()),
  }),
  plan: z.strictObject({ digest, options: runOptionsSchema, frames: z.array(frameSchema) }),
  planAccepted: z.strictObject({ digest }),
  ready: z.strictObject({
    digest,
    device: z.string(),
    versions: z.record(z.string(), z.string()),
    /** What it runs with: attention, forward and backward, the other kernels that are not plain, by kind, and who launches `copies`. */
    kernels: z.record(z.string(), z.string()),
    seconds,
    /** High water of start-up by pool, before the arenas were made; only pools that were measured. */
    poolBytes: z.record(z.string(), count),
    /** Of the device, taken for collectives beside what PyTorch allocated; null where it cannot tell. */
    communicatorBytes: count.nullable(),
    /** The first to run; above 0 where the rank goes on from a checkpoint, which `resumed` names. */
    nextStep: count,
    resumed: z.string().nullable(),
    /** On what was resumed, and what was passed over. */
    remarks: z.array(z.string()),
  }),
  /** Run steps [from, to) of the plan with this digest. */
  runSteps: z.strictObject({ digest, from: count, to: count }),
  stepDone: stepDoneSchema,
  /** Write the state before `step` into the folder of the options, while the next step runs; with `wait` nothing else is done. */
  saveCheckpoint: z.strictObject({ digest, step: count, wait: z.boolean() }),
  /** `folder` has a checkpoint of `bytes`, or there is a `problem`. The rank did nothing else for `blockedSeconds` of `seconds`. */
  checkpointed: z.strictObject({
    digest,
    step: count,
    folder: z.string(),
    bytes: count,
    seconds,
    blockedSeconds: seconds,
    problem: z.string().nullable(),
  }),
  /** Begin no step that not all ranks have begun. Heard while a step runs. */
  stop: z.strictObject({ reason: z.string() }),
  /** The answer: no step from `nextStep` on will be run. */
  stopped: z.strictObject({ nextStep: count }),
  /** Evaluate the held-out data of the options after so many steps: a collective of all ranks. */
  evaluate: z.strictObject({ digest, step: count }),
  evaluated: evaluatedSchema,
  /** Write the model into the folder of the options: a collective of all ranks. */
  exportModel: z.strictObject({ digest }),
  /** `bytes` of weights are in the folder. */
  exported: z.strictObject({ digest, folder: z.string(), numWeights: count, bytes: count, seconds }),
  shutdown: z.strictObject({ reason: z.string() }),
  bye: z.strictObject({ numSteps: count }),
  /** `stacks`: also print the Python stacks of all threads to the rank's log. */
  ping: z.strictObject({ stacks: z.boolean() }),
  pong: z.strictObject({ phase: phaseSchema, step: count.nullable(), sinceUs: count }),
  /** Stop at once, whatever the main thread does. */
  abort: z.strictObject({ reason: z.string() }),
  error: z.strictObject({
    kind: z.string(),
    message: z.string(),
    traceback: z.string().nullable(),
    hint: z.string().nullable(),
    phase: phaseSchema,
    step: count.nullable(),
  }),
} as const;

export type MessageType = keyof typeof BODIES;
export const MESSAGE_TYPES = Object.keys(BODIES) as readonly MessageType[];
export type Body<T extends MessageType> = z.infer<(typeof BODIES)[T]>;

export interface Envelope<T extends MessageType> {
  readonly v: typeof PROTOCOL_VERSION;
  readonly id: string;
  readonly run: string;
  readonly rank: number;
  readonly incarnation: number;
  readonly type: T;
  /** Id of the message this one answers. */
  readonly corr: string | null;
  /** Per sender, from 0: a receiver drops what it has seen before. */
  readonly seq: number;
  /** Microseconds since the Unix epoch. */
  readonly ts_us: number;
  readonly body: Body<T>;
}
export type Message = { [T in MessageType]: Envelope<T> }[MessageType];

const envelope = <T extends MessageType>(type: T) =>
  z.strictObject({
    v: z.literal(PROTOCOL_VERSION),
    id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
    run: runId,
    rank: count,
    incarnation: count,
    type: z.literal(type),
    corr: z.string().nullable(),
    seq: count,
    ts_us: count,
    body: BODIES[type],
  });

export const messageSchema = z
  .discriminatedUnion('type', [
    envelope('hello'),
    envelope('plan'),
    envelope('planAccepted'),
    envelope('ready'),
    envelope('runSteps'),
    envelope('stepDone'),
    envelope('saveCheckpoint'),
    envelope('checkpointed'),
    envelope('stop'),
    envelope('stopped'),
    envelope('evaluate'),
    envelope('evaluated'),
    envelope('exportModel'),
    envelope('exported'),
    envelope('shutdown'),
    envelope('bye'),
    envelope('ping'),
    envelope('pong'),
    envelope('abort'),
    envelope('error'),
  ])
  .meta({ title: 'Message', discriminator: { propertyName: 'type' } });

/** Fields every message has; enough to tell an unknown type from a malformed message. */
const anyEnvelope = z.object({ v: z.number(), type: z.string() });

export type Parsed =
  | { readonly kind: 'message'; readonly message: Message }
  | { readonly kind: 'unknownType'; readonly type: string }
  | { readonly kind: 'invalid'; readonly reason: string };

/** Reads frame 0. Unknown types are for the caller to ignore; unknown fields and versions are invalid. */
export function parseMessage(frame: Uint8Array): Parsed {
  const json = parseJson(frame);
  if ('reason' in json) return { kind: 'invalid', reason: json.reason };
  const outer = anyEnvelope.safeParse(json.value);
  if (!outer.success) return { kind: 'invalid', reason: z.prettifyError(outer.error) };
  if (outer.data.v !== PROTOCOL_VERSION) {
    return { kind: 'invalid', reason: `protocol version ${outer.data.v}, expected ${PROTOCOL_VERSION}` };
  }
  if (!Object.hasOwn(BODIES, outer.data.type)) return { kind: 'unknownType', type: outer.data.type };
  const full = messageSchema.safeParse(json.value);
  if (!full.success) return { kind: 'invalid', reason: z.prettifyError(full.error) };
  return { kind: 'message', message: full.data as Message };
}

export interface Sender {
  readonly run: string;
  readonly rank: number;
  readonly incarnation: number;
}

/** Builds and checks a message to or from one rank. Throws on a body that the schema refuses: a bug of the caller. */
export function makeMessage<T extends MessageType>(
  sender: Sender,
  type: T,
  body: Body<T>,
  seq: number,
  corr: string | null = null,
): Envelope<T> {
  const message = { v: PROTOCOL_VERSION, id: randomUUID(), ...sender, type, corr, seq, ts_us: Date.now() * 1000, body };
  return messageSchema.parse(message) as unknown as Envelope<T>;
}

export function parseJson(frame: Uint8Array): { readonly value: unknown } | { readonly reason: string } {
  try {
    return { value: JSON.parse(Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength).toString('utf8')) };
  } catch (error) {
    return { reason: `not JSON: ${(error as Error).message}` };
  }
}
