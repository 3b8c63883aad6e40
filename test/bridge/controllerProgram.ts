/** A controller to be killed: prints the pids of its ranks when they have been started, and again when rank 0 hangs in its step or has made a child. */

import { runEcho } from './echoRun.js';

const run = await runEcho(process.argv[2] ?? 'hang@0:0', { numSteps: 1_000_000 });
console.log(JSON.stringify(run.pids));
for await (const event of run) {
  if (event.type === 'log' && /^(hanging|grandchild)/.test(event.line)) console.log(JSON.stringify(run.pids));
}
