/** The controller's socket to agents of other hosts: tcp, encrypted with CURVE, for those alone that have the run's key. */

import { Context, curveKeyPair, Router } from 'zeromq';
import { FpdtError } from '../../spec/errors.js';
import { MAX_MESSAGE_BYTES } from '../rankSockets.js';
import { SendChain } from '../sendChain.js';
import { type FromAgent, fromAgentSchema, parseAs, type ToAgent } from './agentMessages.js';
import { admitOnly, ZAP_DOMAIN } from './zap.js';

/** Of connections between hosts: one that is gone without a word is noticed within a minute and a half. */
export const HEARTBEAT = { heartbeatInterval: 10_000, heartbeatTimeout: 60_000, heartbeatTimeToLive: 60_000 } as const;

export interface AgentListener {
  readonly onMessage: (node: number, message: FromAgent, frames: readonly Buffer[]) => void;
  readonly onRemark: (line: string) => void;
  readonly onCrash: (error: unknown) => void;
}

export class AgentLink {
  /** What an agent needs to be let in. */
  readonly keys: { readonly serverKey: string; readonly publicKey: string; readonly secretKey: string };
  readonly #listener: AgentListener;
  readonly #context = new Context();
  readonly #router: Router;
  readonly #sends = new SendChain();
  readonly #endpoints = new Map<string, string>();
  #closeZap: () => Promise<void> = () => Promise.resolve();
  #reading: Promise<unknown> = Promise.resolve();

  private constructor(listener: AgentListener) {
    const server = curveKeyPair();
    this.keys = { serverKey: server.publicKey, ...curveKeyPair() };
    this.#listener = listener;
    this.#router = new Router({
      context: this.#context,
      linger: 0,
      mandatory: true,
      sendTimeout: 0, // A host that reads nothing must not hold up messages to the others.
      maxMessageSize: MAX_MESSAGE_BYTES,
      curveServer: true,
      curvePublicKey: server.publicKey,
      curveSecretKey: server.secretKey,
      zapDomain: ZAP_DOMAIN,
      ...HEARTBEAT,
    });
  }

  /** Listens on addresses of this host. */
  static async open(addresses: readonly string[], listener: AgentListener): Promise<AgentLink> {
    const link = new AgentLink(listener);
    link.#closeZap = await admitOnly(link.#context, link.keys.publicKey);
    link.#router.events.on('handshake:error:auth', () => listener.onRemark('refused a connection with another key'));
    try {
      // A socket takes one bind at a time.
      for (const address of new Set(addresses)) await link.#listen(address);
    } catch (error) {
      await link.close();
      throw error;
    }
    link.#reading = link.#read().catch(listener.onCrash);
    return link;
  }

  endpoint(address: string): string {
    return this.#endpoints.get(address) ?? '';
  }

  /** Resolves when the socket has taken it; rejects with the system's error. */
  send(node: number, message: ToAgent, frames: readonly (string | Buffer)[] = []): Promise<void> {
    const parts = [`node/${node}`, JSON.stringify(message), ...frames];
    return new Promise((resolve, reject) => {
      this.#sends.add(async () => {
        if (this.#router.closed) return resolve();
        await this.#router.send([...parts]).then(resolve, reject);
      });
    });
  }

  async close(): Promise<void> {
    await this.#sends.done();
    this.#router.close();
    await this.#reading;
    await this.#closeZap();
  }

  async #listen(address: string): Promise<void> {
    try {
      await this.#router.bind(`tcp://${address}:*`);
    } catch (cause) {
      throw new FpdtError(`cannot listen on ${address}: ${(cause as Error).message}`, {
        code: 'address-refused',
        hint: 'give --address an IPv4 address of this host that the others reach',
        details: { address },
        cause,
      });
    }
    this.#endpoints.set(address, this.#router.lastEndpoint ?? '');
  }

  async #read(): Promise<void> {
    for await (const [identity, head, ...frames] of this.#router) {
      const node = /^node\/(\d+)$/.exec(identity?.toString() ?? '')?.[1];
      const message = parseAs(fromAgentSchema, head);
      if (node === undefined || message === null) this.#listener.onRemark('ignored what is no message of an agent');
      else this.#listener.onMessage(Number(node), message, frames);
    }
  }
}
