/** Messages to and from the ranks of a run, in order and checked, whichever way they travel. */

import { SendChain } from './sendChain.js';
import { makeMessage, parseMessage, type Body, type Message, type MessageType } from './protocol.js';
import type { RankLink, RankListener } from './rankSockets.js';
import { parseTelemetryBatch, type TelemetryBatch } from './telemetryBatch.js';

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

export class Controller implements RankListener {
  readonly #run: string;
  readonly #listener: Listener;
  readonly #numSent = new Map<number, number>();
  readonly #lastSeen = new Map<number, number>();
  readonly #sends = new SendChain();
  #link: RankLink | null = null;
  #numReceived = 0;

  constructor(run: string, listener: Listener) {
    this.#run = run;
    this.#listener = listener;
  }

  /** To be called before anything is sent. */
  attach(link: RankLink): void {
    this.#link = link;
  }

  /** Queues a message to a rank. Buffers in `frames` must not be changed afterwards. */
  send<T extends MessageType>(rank: number, type: T, body: Body<T>, frames: readonly Uint8Array[] = []): void {
    const seq = this.#numSent.get(rank) ?? 0;
    this.#numSent.set(rank, seq + 1);
    const message = makeMessage({ run: this.#run, rank, incarnation: 0 }, type, body, seq);
    const parts = [`${this.#run}/${rank}/0`, JSON.stringify(message), ...frames.map(asBuffer)];
    this.#sends.add(() => this.#sendNow(rank, type, parts));
  }

  /** Reads on until nothing has come for a moment: the last telemetry of ranks that have just left. */
  async drain(): Promise<void> {
    for (let seen = -1; seen !== this.#numReceived; ) {
      seen = this.#numReceived;
      await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    }
  }

  async close(): Promise<void> {
    const link = this.#link;
    this.#link = null;
    await link?.close();
    await this.#sends.done();
  }

  readonly onControl = (identity: string | undefined, head: Buffer | undefined): void => {
    this.#numReceived += 1;
    if (identity === undefined || head === undefined) this.#listener.onRemark('a message without envelope came in');
    else this.#receive(identity, head);
  };

  readonly onTelemetry = (frame: Buffer | undefined): void => {
    this.#numReceived += 1;
    const parsed = frame === undefined ? null : parseTelemetryBatch(frame);
    if (parsed === null) this.#listener.onRemark('an empty telemetry message came in');
    else if (parsed.kind === 'invalid') this.#listener.onRemark(`ignored malformed telemetry: ${parsed.reason}`);
    else if (parsed.batch.run !== this.#run) this.#listener.onRemark(`ignored telemetry of run ${parsed.batch.run}`);
    else this.#listener.onBatch(parsed.batch);
  };

  readonly onCrash = (error: unknown): void => this.#listener.onCrash(error);

  async #sendNow(rank: number, type: MessageType, parts: (string | Buffer)[]): Promise<void> {
    try {
      await this.#link?.send(parts);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      // The exit of the process is what counts; this only says that it has happened.
      if (code === 'EHOSTUNREACH') this.#listener.onRemark(`rank ${rank} is not connected, ${type} was not sent`);
      else if (code === 'EAGAIN') this.#listener.onBroken(rank, `reads no messages, ${type} was not sent`);
      else if (this.#link !== null) this.#listener.onBroken(rank, `cannot be sent ${type}: ${message}`);
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
}

function asBuffer(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
