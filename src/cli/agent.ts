/** `fpdt agent`: started on a host by `fpdt run`, with its ticket on standard input; ends when that does. */
import { createInterface } from 'node:readline';
import { Agent } from '../bridge/hosts/agent.js';
import { parseAs, type Ticket, ticketSchema } from '../bridge/hosts/agentMessages.js';
import { VERSION } from '../package.js';
import { FpdtError } from '../spec/errors.js';
import type { Output } from './output.js';

/** For whoever reads the exit codes of ssh and srun. */
const LOST = 5;
/** What is on the way to a standard error that somebody still reads. */
const LAST_WORDS_MS = 100;

/** Does not return: what is left of ranks goes with this process. */
export async function agentCommand(output: Output): Promise<never> {
  const input = createInterface({ input: process.stdin });
  const ended = new Promise<string>((resolve) => {
    process.stdin.once('end', () => resolve('whoever started the agent is gone'));
    process.stdin.once('error', (error) => resolve(error.message));
  });
  const line = await Promise.race([new Promise<string>((resolve) => input.once('line', resolve)), ended.then(() => null)]);
  if (line === null) throw notStarted('it was given no ticket');
  const ticket = ticketOf(line);
  const node = nodeOf(ticket);
  enter(ticket);
  // Sent to whole groups of processes: the controller hears of it too, and says what is to be done.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
  const reason = await new Promise<string | null>((resolve) => {
    void ended.then(resolve);
    void Agent.open(ticket, node, resolve).catch((error: unknown) => resolve(String(error)));
  });
  if (reason !== null) {
    output.err(`fpdt agent: ${reason}`);
    await new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS));
  }
  // Kills what is left: at the exit, and by the warden.
  process.exit(reason === null ? 0 : LOST);
}

function ticketOf(line: string): Ticket {
  const ticket = parseAs(ticketSchema, Buffer.from(line));
  if (ticket !== null) return ticket;
  const version = versionOf(line);
  if (version !== null && version !== VERSION) {
    throw new FpdtError(`the controller has fpdt ${version}, this host ${VERSION}`, {
      code: 'version-mismatch',
      hint: 'install the same version on all hosts',
    });
  }
  throw notStarted('what it was given is no ticket');
}

function versionOf(line: string): string | null {
  try {
    const { version } = JSON.parse(line) as { readonly version?: unknown };
    return typeof version === 'string' ? version : null;
  } catch {
    return null;
  }
}

function nodeOf({ node }: Ticket): number {
  if (node !== null) return node;
  const told = Number(process.env['SLURM_NODEID'] ?? Number.NaN);
  if (Number.isSafeInteger(told)) return told;
  throw notStarted('the number of its host is neither in its ticket nor in SLURM_NODEID');
}

function enter({ folder }: Ticket): void {
  try {
    process.chdir(folder);
  } catch (cause) {
    throw new FpdtError(`this host has no folder ${folder}, in which the run was started`, {
      code: 'folder-missing',
      hint: 'start the run in a folder that is on all hosts',
      cause,
    });
  }
}

function notStarted(why: string): FpdtError {
  return new FpdtError(`an agent is started by fpdt run --hostfile or --slurm: ${why}`, { code: 'usage', hint: 'see docs/launching.md' });
}
