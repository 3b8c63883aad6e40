/** Writes schemas/*.json and schemas/cli/*.json from the zod schemas; with --check fails when a committed file is not current. */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { messageSchema } from '../src/bridge/protocol.js';
import { telemetryBatchSchema } from '../src/bridge/telemetryBatch.js';
import { planHeaderSchema } from '../src/plan/header.js';
import { OUTPUT_SCHEMAS } from '../src/report/outputSchemas.js';

const SCHEMAS = { message: messageSchema, telemetryBatch: telemetryBatchSchema, planHeader: planHeaderSchema };

const exchanged = Object.entries(SCHEMAS).map(([name, schema]) => [`${name}.json`, z.toJSONSchema(schema)] as const);
// What commands print refers to one another's files: the plan inside of a limit is a plan summary.
const outputs = z.registry<{ id: string }>();
for (const [id, schema] of Object.entries(OUTPUT_SCHEMAS)) outputs.add(schema, { id });
const printed = z.toJSONSchema(outputs, { uri: (id) => `${id}.json` }).schemas;
const files = [...exchanged, ...Object.entries(printed).map(([id, schema]) => [`cli/${id}.json`, schema] as const)];

const check = process.argv.includes('--check');
let numStale = 0;
for (const [name, schema] of files) {
  const path = fileURLToPath(new URL(`../schemas/${name}`, import.meta.url));
  const text = `${JSON.stringify(schema, null, 2)}\n`;
  if (!check) writeFileSync(path, text);
  else if (readOrEmpty(path) !== text) {
    console.error(`schemas/${name} is not current: run npm run generate`);
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
