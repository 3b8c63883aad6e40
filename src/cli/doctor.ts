/** `fpdt doctor`: what a run needs, what of it is here, and what of this machine holds a run back. */
import { resolvePython, SETUP_HINT } from '../bridge/python.js';
import { type Check, fine, warning } from '../machine/check.js';
import { machineChecks } from '../machine/checks.js';
import { type Host, hostChecks, THIS_HOST } from '../machine/hostChecks.js';
import { readMachineFacts } from '../machine/read.js';
import { BUILD_HINT, type FactSources, type LoadedAddon, loadNativeAddon } from '../native.js';
import { VERSION } from '../package.js';
import { pythonChecks } from '../setup/pythonChecks.js';
import { type Output, printJson } from './output.js';

const OLDEST_NODE = [20, 19] as const;

/** What a test looks at instead of this machine. */
export interface DoctorSubject {
  readonly loaded?: LoadedAddon;
  readonly sources?: FactSources;
  readonly host?: Host;
}

/** Returns the exit code: 1 when something that a run needs is missing. */
export async function doctorCommand(
  options: Readonly<Record<string, unknown>>,
  output: Output,
  { loaded = loadNativeAddon(), sources = {}, host = THIS_HOST }: DoctorSubject = {},
): Promise<number> {
  const facts = 'addon' in loaded ? readMachineFacts(sources, loaded) : null;
  const numGpus = facts === null ? null : facts.gpus.length;
  const checks = [
    nodeCheck(),
    addonCheck(loaded),
    await messagesCheck(),
    ...pythonChecks(() => resolvePython(options['python'] as string | undefined), SETUP_HINT, numGpus),
    ...hostChecks(host, numGpus ?? 0),
    ...(facts === null ? [] : machineChecks(facts)),
  ];
  const ok = checks.every(({ status }) => status !== 'missing');
  if (options['json'] === true) printJson(output, { kind: 'doctor', version: VERSION, ok, checks, facts });
  else output.out(checksToText(checks));
  return ok ? 0 : 1;
}

export function checksToText(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks
    .flatMap(({ name, status, found, hint }) => [
      `${status.padEnd(7)}  ${name.padEnd(width)}  ${found}`,
      ...(hint === undefined ? [] : [`${''.padEnd(9 + width)}  hint: ${hint}`]),
    ])
    .join('\n');
}

function nodeCheck(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isNewEnough = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  if (isNewEnough) return fine('node', process.versions.node);
  return { name: 'node', status: 'missing', found: process.versions.node, hint: `install Node ${OLDEST_NODE.join('.')} or newer` };
}

function addonCheck(loaded: LoadedAddon): Check {
  if ('addon' in loaded) return fine('native addon', 'loaded');
  return warning(
    'native addon',
    `${loaded.reason}: facts of this machine are not known, and long plans are verified more slowly`,
    BUILD_HINT,
  );
}

/** zeromq has a library inside for common systems, and builds one elsewhere. */
async function messagesCheck(): Promise<Check> {
  try {
    const { version } = await import('zeromq');
    return fine('zeromq', version);
  } catch (error) {
    const found = `does not load: ${(error as Error).message.split('\n')[0]}`;
    return { name: 'zeromq', status: 'missing', found, hint: 'npm rebuild zeromq' };
  }
}
