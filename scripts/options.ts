/** What the scripts share of the command line: numbers that are checked, and errors as the CLI prints them. */
import { CONSOLE, printError } from '../src/cli/output.js';
import { FpdtError } from '../src/index.js';

/** Throws FpdtError `usage` for anything but 1, 2, 3 and so on. */
export function wholeNumber(name: string, text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw new FpdtError(`--${name}: expected a whole number of at least 1, found '${text}'`, { code: 'usage' });
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
