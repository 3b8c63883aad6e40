/**
 * The telemetry message a rank pushes: a batch of records that may be lost, numbered so that loss is visible.
 * Twin of python/fpdt/wire/telemetry_batch.py.
 */

import * as z from 'zod';
import { PROTOCOL_VERSION, parseJson, phaseSchema } from './protocol.js';

const count = z.int().nonnegative();

/** One executed op. Times in microseconds since the start of its step on that rank. */
const opRecordSchema = z.strictObject({
  kind: z.literal('op'),
  step: count,
  section: z.string(),
  layer: count,
  op: count,
  opKind: z.string(),
  stream: z.string(),
  startUs: count,
  durationUs: count,
  bytes: count,
});

/** Bytes in use of a pool at one moment of a step. */
const memoryRecordSchema = z.strictObject({
  kind: z.literal('memory'),
  step: count,
  pool: z.string(),
  tsUs: count,
  bytes: count,
});

/** A rank entered a phase; microseconds since the Unix epoch. */
const phaseRecordSchema = z.strictObject({
  kind: z.literal('phase'),
  phase: phaseSchema,
  step: count.nullable(),
  tsUs: count,
});

const telemetryRecordSchema = z
  .discriminatedUnion('kind', [opRecordSchema, memoryRecordSchema, phaseRecordSchema])
  .meta({ discriminator: { propertyName: 'kind' } });
export type OpRecord = z.infer<typeof opRecordSchema>;
export type MemoryRecord = z.infer<typeof memoryRecordSchema>;
export type PhaseRecord = z.infer<typeof phaseRecordSchema>;

export const telemetryBatchSchema = z
  .strictObject({
    v: z.literal(PROTOCOL_VERSION),
    run: z.string(),
    rank: count,
    incarnation: count,
    /** Batches made so far by this rank, sent or dropped: a gap is a lost batch. */
    seq: count,
    /** Records this rank has dropped so far because the socket was full. */
    dropped: count,
    records: z.array(telemetryRecordSchema),
  })
  .meta({ title: 'TelemetryBatch' });
export type TelemetryBatch = z.infer<typeof telemetryBatchSchema>;

export type ParsedBatch =
  | { readonly kind: 'batch'; readonly batch: TelemetryBatch }
  | { readonly kind: 'invalid'; readonly reason: string };

export function parseTelemetryBatch(frame: Uint8Array): ParsedBatch {
  const json = parseJson(frame);
  if ('reason' in json) return { kind: 'invalid', reason: json.reason };
  const batch = telemetryBatchSchema.safeParse(json.value);
  return batch.success ? { kind: 'batch', batch: batch.data } : { kind: 'invalid', reason: z.prettifyError(batch.error) };
}
