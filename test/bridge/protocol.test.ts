import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { MESSAGE_TYPES, makeMessage, messageSchema, parseMessage } from '../../src/bridge/protocol.js';
import { parseTelemetryBatch } from '../../src/bridge/telemetryBatch.js';

const sender = { run: 'run_1', rank: 0, incarnation: 0 };

describe('control messages', () => {
  test.each(fixtures('valid'))('%s is accepted and unchanged by a round trip', (_, frame) => {
    const parsed = parseMessage(frame);
    expect(parsed.kind).toBe('message');
    if (parsed.kind === 'message') expect(parsed.message).toEqual(JSON.parse(frame.toString()));
  });

  test.each(fixtures('invalid'))('%s is refused', (_, frame) => {
    expect(parseMessage(frame).kind).toBe('invalid');
  });

  test.each(fixtures('unknown'))('%s is told apart from a malformed message', (_, frame) => {
    expect(parseMessage(frame).kind).toBe('unknownType');
  });

  test('every type has a valid fixture', () => {
    const seen = new Set(fixtures('valid').map(([, frame]) => (JSON.parse(frame.toString()) as { type: string }).type));
    expect([...seen].sort()).toEqual([...MESSAGE_TYPES].sort());
  });

  test('a message made here parses here', () => {
    const message = makeMessage(sender, 'ping', { stacks: true }, 4, 'm-0');
    expect(parseMessage(Buffer.from(JSON.stringify(message)))).toEqual({ kind: 'message', message });
  });

  test('a body the schema refuses cannot be sent', () => {
    expect(() => makeMessage(sender, 'bye', { numSteps: -1 }, 0)).toThrow();
    expect(messageSchema.safeParse({}).success).toBe(false);
  });
});

describe('telemetry batches', () => {
  test.each(fixtures('telemetry/valid'))('%s is accepted', (_, frame) => {
    expect(parseTelemetryBatch(frame).kind).toBe('batch');
  });

  test.each(fixtures('telemetry/invalid'))('%s is refused', (_, frame) => {
    expect(parseTelemetryBatch(frame).kind).toBe('invalid');
  });
});

function fixtures(folder: string): [string, Buffer][] {
  const root = fileURLToPath(new URL(`../fixtures/wire/${folder}/`, import.meta.url));
  return readdirSync(root).map((name) => [name, readFileSync(root + name)]);
}
