/** A controller to be killed: starts ranks that hang in their first step, and prints their pids when they do. */

import { runEcho } from './echoRun.js';

const run = await runEcho('hang@0:0');
for await (const event of run) {
  if (event.type === 'log' && event.line === 'hanging') console.log(JSON.stringify(run.pids));
}
