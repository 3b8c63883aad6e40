/** Ranks on other hosts: an agent on each, and this process between them. */

import { setTimeout as sleep } from 'node:timers/promises';
import { VERSION } from '../../package.js';
import { FpdtError } from '../../spec/errors.js';
import { describeExit } from '../failure.js';
import { checkRanksFit } from '../hostCapacity.js';
import type { RankExit } from '../ranks.js';
import type { RankLink } from '../rankSockets.js';
import { isLoopback } from './addresses.js';
import { AgentLink } from './agentLink.js';
import type { FromAgent, Ticket } from './agentMessages.js';
import type { PlacedNode } from './placement.js';
import { RemoteRank } from './remoteRank.js';
import type { HostsListener, RankHosts, RanksSetup } from './rankHosts.js';
import type { Starter } from './starters.js';

type Hello = Extract<FromAgent, { type: 'hello' }>;

/** Where agents are to be, and how they come there. */
export interface RemoteSetup {
  readonly nodes: readonly PlacedNode[];
  /** Of this host, as each of them reaches it. */
  readonly addresses: readonly string[];
  /** Null: each host has its own. */
  readonly python: string | null;
  readonly exported: Readonly<Record<string, string>>;
  readonly start: (tickets: readonly Ticket[], onLine: (host: string, line: string) => void) => readonly Starter[];
}

const ASK_MS = 1000;
const POLL_MS = 20;
/** More than an agent gives its ranks. */
const END_MS = 25_000;
const LEAVE_MS = 5000;
/** From the start of agents to the last hello. */
const HELLO_MS = 300_000;
const HELLO_HINT = 'the command must start there without asking for anything: see docs/launching.md';

export async function openRemoteHosts(remote: RemoteSetup, setup: RanksSetup, listener: HostsListener): Promise<RankHosts> {
  const hosts = new RemoteHosts(remote, setup, listener);
  try {
    await hosts.open();
    return hosts;
  } catch (error) {
    await hosts.giveUp();
    throw error;
  }
}

class RemoteHosts implements RankHosts {
  readonly ranks: readonly RemoteRank[];
  readonly link: RankLink = { send: (parts) => this.#sendToRank(parts), close: () => this.#close() };
  readonly #remote: RemoteSetup;
  readonly #setup: RanksSetup;
  readonly #listener: HostsListener;
  readonly #hellos = new Map<number, Hello>();
  readonly #ended = new Set<number>();
  readonly #left: string[] = [];
  #agents: AgentLink | null = null;
  #starters: readonly Starter[] = [];
  /** What ranks say before whoever listens knows that they are started. */
  #early: (() => void)[] | null = [];
  #problem: FpdtError | null = null;
  #lost: Parameters<HostsListener['onHostLost']> | null = null;
  #isEnding = false;

  constructor(remote: RemoteSetup, setup: RanksSetup, listener: HostsListener) {
    this.#remote = remote;
    this.#setup = setup;
    this.#listener = listener;
    this.ranks = remote.nodes.flatMap(({ host, firstRank, numRanks }, node) =>
      Array.from({ length: numRanks }, (_, index) => new RemoteRank(firstRank + index, node, host)),
    );
  }

  async open(): Promise<void> {
    const agents = await AgentLink.open(this.#remote.addresses, {
      onMessage: (node, message, frames) => this.#onMessage(node, message, frames),
      onRemark: (line) => this.#listener.onRemark(line),
      onCrash: (error) => this.#listener.onCrash(error),
    });
    this.#agents = agents;
    const tickets = this.#remote.addresses.map((address, node) => this.#ticket(agents, address, node));
    this.#starters = this.#remote.start(tickets, (host, line) => this.#listener.onRemark(`${host}: ${line}`));
    for (const starter of this.#starters) void starter.exited.then((exit) => this.#onStarterExit(starter, exit));
    await this.#until(
      () => this.#hellos.size === this.#remote.nodes.length,
      HELLO_MS,
      () => this.#noHello(),
    );
    await this.#startRanks(agents);
    await this.#until(
      () => this.ranks.every(({ isStarted }) => isStarted),
      HELLO_MS,
      () => this.#noHello(),
    );
    setImmediate(() => this.#tellEarly());
  }

  async stop(ask: () => boolean): Promise<void> {
    if (ask()) await this.#until(() => this.ranks.every((rank) => rank.exit() !== null), ASK_MS);
    this.#isEnding = true;
    await Promise.all(this.#remote.nodes.map((_, node) => this.#askToEnd(node)));
    await this.#until(() => this.#remote.nodes.every((_, node) => this.#ended.has(node) || this.#isGone(node)), END_MS);
    await this.giveUp();
    for (const rank of this.ranks) rank.giveUp();
    if (this.#left.length === 0) return;
    throw new FpdtError(`processes may be left: ${this.#left.join('; ')}`, {
      code: 'process-left',
      hint: 'a process in uninterruptible sleep ends when its device or file system answers',
    });
  }

  /** Ends what was started on this host: agents end with it. */
  async giveUp(): Promise<void> {
    this.#isEnding = true;
    await this.#until(() => this.#starters.every((one) => one.exit() !== null), this.#ended.size > 0 ? LEAVE_MS : 0);
    for (const starter of this.#starters) starter.kill();
    await Promise.all(this.#starters.map(({ exited }) => exited));
    if (this.#early !== null) await this.#close();
  }

  /** One that cannot be reached has lost the controller too, and ends by itself. */
  async #askToEnd(node: number): Promise<void> {
    await this.#agents?.send(node, { type: 'end' }).catch(() => undefined);
  }

  async #close(): Promise<void> {
    const agents = this.#agents;
    this.#agents = null;
    await agents?.close();
  }

  #ticket(agents: AgentLink, address: string, node: number): Ticket {
    const { run } = this.#setup;
    return {
      kind: 'fpdtAgentTicket',
      version: VERSION,
      run,
      endpoint: agents.endpoint(address),
      ...agents.keys,
      node,
      folder: process.cwd(),
    };
  }

  async #startRanks(agents: AgentLink): Promise<void> {
    const { nodes, addresses, python, exported } = this.#remote;
    const { device, numRanks, worker } = this.#setup;
    const first = this.#hellos.get(0);
    if (first === undefined) throw new RangeError('no host');
    // A first host that reaches the controller by the loopback is the controller's own: the others know its address.
    const masterAddress = isLoopback(first.address) ? (addresses.find((one) => !isLoopback(one)) ?? first.address) : first.address;
    const common = { device, numRanks, worker, python, environment: { ...exported }, masterAddress, masterPort: first.port };
    for (const [node, { firstRank, numRanks: count, slots }] of nodes.entries()) {
      const ranks = Array.from({ length: count }, (_, localRank) => ({ rank: firstRank + localRank, localRank }));
      await agents.send(node, { type: 'start', ranks, slots: slots === null ? null : [...slots], ...common });
    }
  }

  #onMessage(node: number, message: FromAgent, frames: readonly Buffer[]): void {
    if (message.type === 'hello') this.#greet(node, message);
    else if (message.type === 'ended') this.#onEnded(node, message.left);
    else if (message.type === 'failed') this.#onFailed(node, message.message, message.hint);
    else if (message.type === 'started') this.#rank(node, message.rank)?.start(message.pid);
    else if (this.#early === null) this.#tell(node, message, frames);
    else this.#early.push(() => this.#tell(node, message, frames));
  }

  #tell(node: number, message: FromAgent, [identity, frame]: readonly Buffer[]): void {
    if (message.type === 'control') this.#listener.onControl(identity?.toString(), frame);
    else if (message.type === 'telemetry') this.#listener.onTelemetry(identity);
    else if (message.type === 'exited') this.#rank(node, message.rank)?.end(message);
    else if (message.type === 'closed') this.#rank(node, message.rank)?.close();
    else if (message.type === 'line') {
      this.#rank(node, message.rank)?.hear(message.stream, message.line);
      this.#listener.onLine(message.rank, message.stream, message.line);
    }
  }

  #tellEarly(): void {
    const early = this.#early ?? [];
    this.#early = null;
    for (const tell of early) tell();
    if (this.#lost !== null) this.#listener.onHostLost(...this.#lost);
  }

  #greet(node: number, hello: Hello): void {
    const placed = this.#remote.nodes[node];
    if (placed === undefined || this.#hellos.has(node) || hello.node !== node) {
      this.#listener.onRemark(`ignored an agent on ${hello.host} that says it is node ${hello.node}`);
      return;
    }
    this.#hellos.set(node, hello);
    const { numProcessors, numGpus } = hello;
    try {
      if (hello.version !== VERSION) throw otherVersion(hostName(placed, hello), hello.version);
      const devices = placed.slots === null ? placed.numRanks : Math.max(...placed.slots) + 1;
      const numRanks = this.#setup.device === 'cuda' ? devices : placed.numRanks;
      checkRanksFit({ numRanks, device: this.#setup.device }, { name: hostName(placed, hello), numProcessors, numGpus });
    } catch (error) {
      this.#problem ??= error as FpdtError;
    }
  }

  #onEnded(node: number, left: readonly number[]): void {
    this.#ended.add(node);
    if (left.length > 0) this.#left.push(`groups ${left.join(', ')} on ${this.#hostOf(node)} survived SIGKILL`);
  }

  #onFailed(node: number, reason: string, hint: string | null): void {
    this.#lose(this.#hostOf(node), reason, hint ?? HELLO_HINT);
  }

  #onStarterExit(starter: Starter, exit: RankExit): void {
    if (this.#isEnding) return;
    const last = starter.lastLine();
    this.#lose(starter.name, `its agent ${describeExit(exit)}${last === '' ? '' : `: ${last}`}`, HELLO_HINT);
  }

  #lose(...[host, reason, hint]: Parameters<HostsListener['onHostLost']>): void {
    if (this.#early === null) {
      this.#listener.onHostLost(host, reason, hint);
      return;
    }
    this.#lost ??= [host, reason, hint];
    this.#problem ??= new FpdtError(`host ${host}: ${reason}`, { code: 'host-lost', hint, details: { host, reason } });
  }

  #noHello(): FpdtError {
    const silent = this.#remote.nodes.filter((_, node) => !this.#hellos.has(node)).map(({ host }) => host);
    const reason = `no agent says hello from ${silent.join(', ')}`;
    return new FpdtError(reason, { code: 'host-lost', hint: HELLO_HINT, details: { hosts: silent } });
  }

  /** Waits; throws what has gone wrong meanwhile, and what `tooLate` returns where that is given. */
  async #until(isDone: () => boolean, limitMs: number, tooLate?: () => FpdtError): Promise<void> {
    for (let waitedMs = 0; !isDone(); waitedMs += POLL_MS) {
      if (tooLate !== undefined) {
        if (this.#problem !== null) throw this.#problem;
        const { signal } = this.#setup;
        if (signal?.aborted === true) throw aborted(signal);
      }
      if (waitedMs >= limitMs) {
        if (tooLate !== undefined) throw tooLate();
        return;
      }
      await sleep(POLL_MS);
    }
    if (tooLate !== undefined && this.#problem !== null) throw this.#problem;
  }

  async #sendToRank(parts: readonly (string | Buffer)[]): Promise<void> {
    const rank = this.ranks[Number(/\/(\d+)\/\d+$/.exec(String(parts[0]))?.[1])];
    if (rank !== undefined) await this.#agents?.send(rank.node, { type: 'control' }, parts);
  }

  /** Of its own node: another's word is not taken. */
  #rank(node: number, rank: number): RemoteRank | undefined {
    const found = this.ranks[rank];
    return found?.node === node ? found : undefined;
  }

  #isGone(node: number): boolean {
    const starter = this.#starters[node] ?? this.#starters[0];
    return starter === undefined || starter.exit() !== null;
  }

  #hostOf(node: number): string {
    return this.#remote.nodes[node]?.host ?? String(node);
  }
}

/** Slurm's hosts have a name when they say hello. */
function hostName({ host }: PlacedNode, hello: Hello): string {
  return host === '' ? hello.host : host;
}

function otherVersion(host: string, found: string): FpdtError {
  return new FpdtError(`${host} has fpdt ${found}, this host ${VERSION}`, {
    code: 'version-mismatch',
    hint: 'install the same version on all hosts',
    details: { host, found, expected: VERSION },
  });
}

function aborted(signal: AbortSignal): FpdtError {
  const reason = signal.reason instanceof Error ? signal.reason.message : String(signal.reason);
  return new FpdtError(`run aborted: ${reason}`, { code: 'run-aborted', details: { reason } });
}
