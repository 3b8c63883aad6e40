/** Writes schemas/*.json from the zod schemas; with --check fails when a committed file is not current. */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { messageSchema } from '../src/bridge/protocol.js';
import { telemetryBatchSchema } from '../src/bridge/telemetryBatch.js';
import { planHeaderSchema } from '../src/plan/header.js';

const SCHEMAS = { message: messageSchema, telemetryBatch: telemetryBatchSchema, planHeader: planHeaderSchema };

const check = process.argv.includes('--check');
let numStale = 0;
for (const [name, schema] of Object.entries(SCHEMAS)) {
  const path = fileURLToPath(new URL(`../schemas/${name}.json`, import.meta.url));
  const text = `${JSON.stringify(z.toJSONSchema(schema), null, 2)}\n`;
  if (!check) writeFileSync(path, text);
  else if (readOrEmpty(path) !== text) {
    console.error(`schemas/${name}.json is not current: run npm run generate`);
    numStale += 1;
  }
}
process.exitCode = numStale > 0 ? 1 : 0;

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
