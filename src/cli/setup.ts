/** `fpdt setup`: the Python environment that runs use. */
import type { SetupOptions } from '../setup/makeEnvironment.js';
import { setUp } from '../setup/setup.js';
import { type Output, printJson } from './output.js';

/** What is done goes to stderr while it is done. */
export function setupCommand(options: SetupOptions & { readonly json?: boolean }, output: Output): void {
  const result = setUp(options, (line) => output.err(`setup: ${line}`));
  if (options.json === true) printJson(output, result);
  else output.out(`ready: ${result.python}, torch ${result.torch}${result.wasThere ? '; nothing had to be done' : ''}`);
}
