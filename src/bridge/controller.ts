/** The controller's two sockets: ROUTER for control messages, PULL for telemetry, in a folder only this user can enter. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pull, Router } from 'zeromq';
import { FpdtError } from '../spec/errors.js';
import { makeMessage, parseMessage, type Body, type Message, type MessageType } from './protocol.js';
import { parseTelemetryBatch, type TelemetryBatch } from './telemetryBatch.js';

const MAX_MESSAGE_BYTES = 256 * 2 ** 20;
/** The kernel's limit for the path of a socket, less the longest file name used here. */
const MAX_FOLDER_LENGTH = 90;
const QUIET_MS = 50;

export interface Listener {
  readonly onMessage: (rank: number, message: Message) => void;
  readonly onBatch: (batch: TelemetryBatch) => void;
  /** Something that is not a message of this run and protocol came in, or could not be sent to a rank that is gone. */
  readonly onRemark: (line: string) => void;
  /** A rank cannot be talked to any more. */
  readonly onBroken: (rank: number, reason: string) => void;
  /** A listener threw, or a socket cannot be read. */
  readonly onCrash: (error: unknown) => void;
}

/** The sockets are ipc files; tcp would need CURVE keys and an allow-list, so it is refused. */
export function checkEndpoint(endpoint: string): void {
  if (endpoint.startsWith('ipc://')) return;
  throw new FpdtError(`endpoint ${endpoint} is not an ipc:// endpoint`, {
    code: 'endpoint-refused',
    hint: 'run the controller on the host of the ranks; unencrypted tcp is never opened',
    details: { endpoint },
  });
}

export class Controller {
  readonly controlEndpoint: string;
  readonly telemetryEndpoint: string;
  readonly #run: string;
  readonly #folder: string;
  readonly #listener: Listener;
  readonly #router = new Router({
    linger: 0,
    mandatory: true,
    sendTimeout: 0, // A rank that is gone, or reads nothing, must not hold up messages to the others.
    maxMessageSize: MAX_MESSAGE_BYTES,
  });
  readonly #pull = new Pull({ linger: 0, maxMessageSize: MAX_MESSAGE_BYTES });
  readonly #numSent = new Map<number, number>();
  readonly #lastSeen = new Map<number, number>();
  /** A socket takes one send at a time. */
  #sending: Promise<void> = Promise.resolve();
  #readers: Promise<unknown> = Promise.resolve();
  #numReceived = 0;

  private constructor(run: string, folder: string, listener: Listener) {
    this.#run = run;
    this.#folder = folder;
    this.#listener = listener;
    this.controlEndpoint = `ipc://${folder}/control`;
    this.telemetryEndpoint = `ipc://${folder}/telemetry`;
  }

  static async open(run: string, listener: Listener): Promise<Controller> {
    const parent = tmpdir().length <= MAX_FOLDER_LENGTH - 12 ? tmpdir() : '/tmp';
    const controller = new Controller(run, await mkdtemp(join(parent, 'fpdt-')), listener);
    await controller.#bind();
    return controller;
  }

  /** Queues a message to a rank. Buffers in `frames` must not be changed afterwards. */
  send<T extends MessageType>(rank: number, type: T, body: Body<T>, frames: readonly Uint8Array[] = []): void {
    const seq = this.#numSent.get(rank) ?? 0;
    this.#numSent.set(rank, seq + 1);
    const message = makeMessage({ run: this.#run, rank, incarnation: 0 }, type, body, seq);
    const parts = [`${this.#run}/${rank}/0`, JSON.stringify(message), ...frames.map(asBuffer)];
    this.#sending = this.#sending.then(() => this.#sendNow(rank, type, parts));
  }

  /** Reads on until nothing has come for a moment: the last telemetry of ranks that have just left. */
  async drain(): Promise<void> {
    for (let seen = -1; seen !== this.#numReceived; ) {
      seen = this.#numReceived;
      await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    }
  }

  async close(): Promise<void> {
    this.#router.close();
    this.#pull.close();
    await this.#sending;
    await this.#readers;
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #bind(): Promise<void> {
    checkEndpoint(this.controlEndpoint);
    checkEndpoint(this.telemetryEndpoint);
    await this.#router.bind(this.controlEndpoint);
    await this.#pull.bind(this.telemetryEndpoint);
    this.#readers = Promise.all([this.#readControl(), this.#readTelemetry()]).catch(this.#listener.onCrash);
  }

  async #sendNow(rank: number, type: MessageType, parts: (string | Buffer)[]): Promise<void> {
    if (this.#router.closed) return;
    try {
      await this.#router.send(parts);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      // The exit of the process is what counts; this only says that it has happened.
      if (code === 'EHOSTUNREACH') this.#listener.onRemark(`rank ${rank} is not connected, ${type} was not sent`);
      else if (code === 'EAGAIN') this.#listener.onBroken(rank, `reads no messages, ${type} was not sent`);
      else if (!this.#router.closed) this.#listener.onBroken(rank, `cannot be sent ${type}: ${message}`);
    }
  }

  async #readControl(): Promise<void> {
    for await (const [identity, head] of this.#router) {
      this.#numReceived += 1;
      if (identity === undefined || head === undefined) this.#listener.onRemark('a message without envelope came in');
      else this.#receive(identity.toString(), head);
    }
  }

  #receive(identity: string, head: Buffer): void {
    const rank = this.#rankOf(identity);
    const parsed = parseMessage(head);
    if (rank === null) this.#listener.onRemark(`ignored a message from ${identity}, not a rank of this run`);
    else if (parsed.kind === 'unknownType') this.#listener.onRemark(`ignored ${parsed.type} from rank ${rank}`);
    else if (parsed.kind === 'invalid') this.#listener.onBroken(rank, `sent a malformed message: ${parsed.reason}`);
    else this.#receiveMessage(identity, rank, parsed.message);
  }

  #receiveMessage(identity: string, rank: number, message: Message): void {
    const sender = `${message.run}/${message.rank}/${message.incarnation}`;
    if (sender !== identity) this.#listener.onBroken(rank, `sent a message as ${sender}`);
    else if (message.seq > (this.#lastSeen.get(rank) ?? -1)) {
      this.#lastSeen.set(rank, message.seq);
      this.#listener.onMessage(rank, message);
    }
  }

  #rankOf(identity: string): number | null {
    const [run, rank, incarnation] = identity.split('/');
    return run === this.#run && incarnation === '0' && rank !== undefined && /^\d+$/.test(rank) ? Number(rank) : null;
  }

  async #readTelemetry(): Promise<void> {
    for await (const [frame] of this.#pull) {
      this.#numReceived += 1;
      const parsed = frame === undefined ? null : parseTelemetryBatch(frame);
      if (parsed === null) this.#listener.onRemark('an empty telemetry message came in');
      else if (parsed.kind === 'invalid') this.#listener.onRemark(`ignored malformed telemetry: ${parsed.reason}`);
      else if (parsed.batch.run !== this.#run) this.#listener.onRemark(`ignored telemetry of run ${parsed.batch.run}`);
      else this.#listener.onBatch(parsed.batch);
    }
  }
}

function asBuffer(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
