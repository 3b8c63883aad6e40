/** libaio's headers, which tests of states on a disk compile DeepSpeed's async_io against. Those tests fail without; nothing else does. */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { say } from './shared.mjs';

const HEADER = '/usr/include/libaio.h';
const INSTALL = ['install', '-y', '--no-install-recommends', 'libaio-dev'];

export function installLibaio() {
  if (process.platform !== 'linux' || existsSync(HEADER)) return;
  say('installing libaio-dev ...');
  const isRoot = process.getuid?.() === 0;
  const done = isRoot && (aptGet(INSTALL) || (aptGet(['update']) && aptGet(INSTALL)));
  say(done ? '  done' : '  not possible here: pytest -m full needs it; on Debian and Ubuntu: sudo apt-get install libaio-dev');
}

function aptGet(args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync('apt-get', args, { env, stdio: 'ignore' }).status === 0;
}
