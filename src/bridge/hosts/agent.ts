/**
 * The agent of one host: starts and supervises its ranks, and passes on what they and the controller tell each other. It ends, and all it has
 * started with it, when its standard input does or when it loses the controller: a run is never left without one.
 */

import { hostname } from 'node:os';
import { Dealer } from 'zeromq';
import { VERSION } from '../../package.js';
import { FpdtError } from '../../spec/errors.js';
import { hostCapacity } from '../hostCapacity.js';
import { stopGroups } from '../killLadder.js';
import { resolvePython } from '../python.js';
import { type Environment, freePort, rankEnvironment } from '../rankEnvironment.js';
import { startRank, type RankProcess } from '../ranks.js';
import { MAX_MESSAGE_BYTES, RankSockets } from '../rankSockets.js';
import { SendChain } from '../sendChain.js';
import { addressTowards, interfaceOf, isLoopback } from './addresses.js';
import { type FromAgent, parseAs, type Ticket, type ToAgent, toAgentSchema } from './agentMessages.js';
import { HEARTBEAT } from './agentLink.js';
import { workerArguments } from './rankHosts.js';

type Start = Extract<ToAgent, { type: 'start' }>;

/** Telemetry that waits for the controller; what comes then is left out, as a rank itself would. */
const MAX_WAITING = 1000;
const QUIET_MS = 50;
/** For the answer to `end`, and for nothing else: a controller that is gone must not hold an agent up. */
const LAST_WORD_MS = 2000;
const CONNECT_MS = 60_000;

export class Agent {
  readonly #ticket: Ticket;
  readonly #dealer: Dealer;
  readonly #sends = new SendChain();
  readonly #onEnd: (reason: string | null) => void;
  #address = '';
  #sockets: RankSockets | null = null;
  #ranks: readonly RankProcess[] = [];

  private constructor(ticket: Ticket, node: number, onEnd: (reason: string | null) => void) {
    this.#ticket = ticket;
    this.#onEnd = onEnd;
    this.#dealer = new Dealer({
      routingId: `node/${node}`,
      linger: 0,
      maxMessageSize: MAX_MESSAGE_BYTES,
      curveServerKey: ticket.serverKey,
      curvePublicKey: ticket.publicKey,
      curveSecretKey: ticket.secretKey,
      ...HEARTBEAT,
    });
  }

  /** `onEnd` is called once with null when all is done, or with why the agent cannot go on; its process must end then. */
  static async open(ticket: Ticket, node: number, onEnd: (reason: string | null) => void): Promise<void> {
    const agent = new Agent(ticket, node, onEnd);
    const { hostname: controller } = new URL(ticket.endpoint);
    agent.#address = (await addressTowards(controller)) ?? controller;
    agent.#watchConnection();
    agent.#dealer.connect(ticket.endpoint);
    void agent.#receive().catch((error: unknown) => onEnd(String(error)));
    const { numProcessors, numGpus } = hostCapacity();
    const port = await freePort(agent.#address);
    const facts = { version: VERSION, node, host: hostname(), pid: process.pid, address: agent.#address, port, numProcessors, numGpus };
    agent.#send({ type: 'hello', ...facts });
  }

  #watchConnection(): void {
    const { events } = this.#dealer;
    const { endpoint } = this.#ticket;
    const why = `no connection to the controller at ${endpoint} within ${CONNECT_MS / 1000} s: give --address, one that this host reaches`;
    const patience = setTimeout(() => this.#onEnd(why), CONNECT_MS).unref();
    events.on('handshake', () => clearTimeout(patience));
    events.on('handshake:error:auth', () => this.#onEnd('the controller does not know this key'));
    events.on('handshake:error:protocol', () => this.#onEnd('what listens there is not this controller'));
    events.on('disconnect', () => this.#onEnd('the controller is gone'));
  }

  async #receive(): Promise<void> {
    for await (const [head, ...frames] of this.#dealer) {
      const message = parseAs(toAgentSchema, head);
      if (message === null) this.#fail(new FpdtError('the controller sent what is no message to an agent', { code: 'protocol-violation' }));
      else if (message.type === 'start') await this.#start(message).catch((error: unknown) => this.#fail(error));
      else if (message.type === 'control') await this.#passOn(frames);
      else await this.#end();
    }
  }

  async #start(start: Start): Promise<void> {
    const python = resolvePython(start.python ?? undefined, { ...process.env, ...start.environment });
    const sockets = await RankSockets.open({
      onControl: (identity, head) => this.#send({ type: 'control' }, [identity ?? '', head ?? '']),
      onTelemetry: (frame) => {
        if (this.#sends.numWaiting < MAX_WAITING) this.#send({ type: 'telemetry' }, [frame ?? '']);
      },
      onCrash: (error) => this.#fail(error),
    });
    this.#sockets = sockets;
    const base = this.#environment(start);
    this.#ranks = start.ranks.map((place) =>
      startRank({
        rank: place.rank,
        python,
        arguments: workerArguments({ worker: start.worker, run: this.#ticket.run }, sockets),
        environment: rankEnvironment({ ...start, ...place }, base),
        onLine: (stream, line) => this.#send({ type: 'line', rank: place.rank, stream, line }),
      }),
    );
    for (const rank of this.#ranks) this.#watchRank(rank);
  }

  /** Libraries meet on the interface that leads to the controller, not on the one of the host's name, which may be the loopback. */
  #environment({ environment, slots, device, masterAddress }: Start): Environment {
    const meeting = interfaceOf(isLoopback(this.#address) ? masterAddress : this.#address);
    return {
      ...(meeting === undefined ? {} : { GLOO_SOCKET_IFNAME: meeting }),
      ...process.env,
      ...environment,
      ...(slots === null || device === 'cpu' ? {} : { CUDA_VISIBLE_DEVICES: slots.join(',') }),
    };
  }

  #watchRank(process: RankProcess): void {
    const { rank, pid } = process;
    this.#send({ type: 'started', rank, pid: pid ?? null });
    void process.exited.then((exit) => this.#send({ type: 'exited', rank, ...exit }));
    void process.closed.then(() => this.#send({ type: 'closed', rank }));
  }

  /** A rank that is gone gets nothing; its exit has been told. */
  async #passOn(frames: readonly Buffer[]): Promise<void> {
    try {
      await this.#sockets?.send(frames);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'EHOSTUNREACH') this.#fail(new FpdtError(`a rank cannot be sent a message: ${message}`, { code: 'rank-unreachable' }));
    }
  }

  async #end(): Promise<void> {
    const groups = this.#ranks.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
    const left = await stopGroups(groups, () => false).then(
      () => [],
      (error: unknown) => leftOf(error),
    );
    await Promise.all(this.#ranks.map((rank) => rank.closed));
    // What ranks sent last is in the sockets.
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    await this.#sockets?.close();
    this.#send({ type: 'ended', left });
    await this.#sends.done();
    this.#dealer.linger = LAST_WORD_MS;
    this.#dealer.close();
    this.#onEnd(null);
  }

  #fail(error: unknown): void {
    const { message } = error as Error;
    this.#send({ type: 'failed', message, hint: error instanceof FpdtError ? (error.hint ?? null) : null });
  }

  #send(message: FromAgent, frames: readonly (string | Buffer)[] = []): void {
    const parts = [JSON.stringify(message), ...frames];
    this.#sends.add(async () => {
      if (this.#dealer.closed) return;
      await this.#dealer.send([...parts]).catch((error: unknown) => this.#onEnd(`cannot send to the controller: ${String(error)}`));
    });
  }
}

function leftOf(error: unknown): number[] {
  const groups = error instanceof FpdtError && error.code === 'process-left' ? error.details?.['groups'] : undefined;
  if (!Array.isArray(groups)) throw error;
  return groups.map(Number);
}
