/** In the place of ssh, with hosts that are all this one, and of an installed package. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PACKAGE_ROOT } from '../../../src/package.js';
import { ECHO_PATH } from '../echoRun.js';

export const SHELL = fileURLToPath(new URL('localShell.sh', import.meta.url));
export const AGENT = [process.execPath, '--import', 'tsx', join(PACKAGE_ROOT, 'src', 'cli', 'main.ts'), 'agent'];
/** With the echo worker. */
export const ENVIRONMENT = { ...process.env, PYTHONPATH: ECHO_PATH };
