/** What the scripts share of the command line: options and numbers that are checked, and errors as the CLI prints them. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { CONSOLE, printError } from '../src/cli/output.js';
import { FpdtError } from '../src/index.js';
import { nearestKey } from '../src/spec/nearestKey.js';

/** As Node's parseArgs; throws FpdtError `usage` for what is not in `options`, with the option that was meant. */
export function parseOptions<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (cause) {
    if (!(cause instanceof TypeError && 'code' in cause && String(cause.code).startsWith('ERR_PARSE_ARGS'))) throw cause;
    const known = Object.keys(config.options ?? {});
    const given = /Unknown option '-*([^']+)'/.exec(cause.message)?.[1];
    const nearest = given === undefined ? undefined : nearestKey(given, known);
    const hint = nearest === undefined ? `options: ${known.map((name) => `--${name}`).join(', ')}` : `did you mean --${nearest}?`;
    throw new FpdtError(cause.message, { code: 'usage', hint, cause });
  }
}

interface Range {
  readonly least?: number;
  /** As many as there are. */
  readonly most?: number;
}

/** Throws FpdtError `usage` for anything but whole numbers in the range: 1, 2, 3 and so on, unless it says otherwise. */
export function wholeNumber(name: string, text: string, { least = 1, most = Number.MAX_SAFE_INTEGER }: Range = {}): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  const nearest = value > most ? most : least;
  throw new FpdtError(`--${name}: expected a whole number ${range}, found '${text}'`, { code: 'usage', hint: `give --${name} ${nearest}` });
}

/** Runs a script's `main`; an error is printed with its hint and the exit code is 1. */
export async function runScript(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    printError(CONSOLE, error, false);
    process.exitCode = 1;
  }
}
