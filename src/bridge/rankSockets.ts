/** The two sockets that ranks of this host connect to: ROUTER for control, PULL for telemetry, in a folder only this user can enter. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pull, Router } from 'zeromq';
import { FpdtError } from '../spec/errors.js';

export const MAX_MESSAGE_BYTES = 256 * 2 ** 20;
/** The kernel's limit for the path of a socket, less the longest file name used here. */
const MAX_FOLDER_LENGTH = 90;

/** What comes from ranks, whichever way. */
export interface RankListener {
  /** A message: an envelope. Both are undefined only where somebody sent less. */
  readonly onControl: (identity: string | undefined, head: Buffer | undefined) => void;
  readonly onTelemetry: (frame: Buffer | undefined) => void;
  /** A listener threw, or a socket cannot be read. */
  readonly onCrash: (error: unknown) => void;
}

/** A way to ranks. */
export interface RankLink {
  /** Identity, envelope, frames. Rejects with the system's error: EHOSTUNREACH where a rank is not connected, EAGAIN where it reads nothing. */
  readonly send: (parts: readonly (string | Buffer)[]) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** Between processes of one host; tcp would need CURVE keys and an allow-list, so it is refused. */
export function checkEndpoint(endpoint: string): void {
  if (endpoint.startsWith('ipc://')) return;
  throw new FpdtError(`endpoint ${endpoint} is not an ipc:// endpoint`, {
    code: 'endpoint-refused',
    hint: 'ranks of other hosts have an agent there; unencrypted tcp is never opened',
    details: { endpoint },
  });
}

export class RankSockets implements RankLink {
  readonly controlEndpoint: string;
  readonly telemetryEndpoint: string;
  readonly #folder: string;
  readonly #listener: RankListener;
  readonly #router = new Router({
    linger: 0,
    mandatory: true,
    sendTimeout: 0, // A rank that is gone, or reads nothing, must not hold up messages to the others.
    maxMessageSize: MAX_MESSAGE_BYTES,
  });
  readonly #pull = new Pull({ linger: 0, maxMessageSize: MAX_MESSAGE_BYTES });
  #readers: Promise<unknown> = Promise.resolve();

  private constructor(folder: string, listener: RankListener) {
    this.#folder = folder;
    this.#listener = listener;
    this.controlEndpoint = `ipc://${folder}/control`;
    this.telemetryEndpoint = `ipc://${folder}/telemetry`;
  }

  static async open(listener: RankListener): Promise<RankSockets> {
    const parent = tmpdir().length <= MAX_FOLDER_LENGTH - 12 ? tmpdir() : '/tmp';
    const sockets = new RankSockets(await mkdtemp(join(parent, 'fpdt-')), listener);
    await sockets.#bind();
    return sockets;
  }

  async send(parts: readonly (string | Buffer)[]): Promise<void> {
    if (!this.#router.closed) await this.#router.send([...parts]);
  }

  async close(): Promise<void> {
    this.#router.close();
    this.#pull.close();
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

  async #readControl(): Promise<void> {
    for await (const [identity, head] of this.#router) this.#listener.onControl(identity?.toString(), head);
  }

  async #readTelemetry(): Promise<void> {
    for await (const [frame] of this.#pull) this.#listener.onTelemetry(frame);
  }
}
