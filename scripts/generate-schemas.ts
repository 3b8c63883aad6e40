/** Writes schemas/*.json and schemas/cli/*.json from the zod schemas; with --check fails when a committed file is not current. */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { messageSchema } from '../src/bridge/protocol.js';
import { telemetryBatchSchema } from '../src/bridge/telemetryBatch.js';
import { planHeaderSchema } from '../src/plan/header.js';
import { OUTPUT_SCHEMAS } from '../src/report/outputSchemas.js';
import { parseOptions, runScript } from './options.js';

const SCHEMAS = { message: messageSchema, telemetryBatch: telemetryBatchSchema, planHeader: planHeaderSchema };

function main(): void {
  const { values } = parseOptions({ options: { check: { type: 'boolean', default: false } } });
  const stale = files().filter(({ path, text }) => readOrEmpty(path) !== text);
  for (const { name, path, text } of stale) {
    if (values.check) process.stderr.write(`schemas/${name} is not current: run npm run generate\n`);
    else writeFileSync(path, text);
  }
  process.exitCode = values.check && stale.length > 0 ? 1 : 0;
}

interface SchemaFile {
  readonly name: string;
  readonly path: string;
  readonly text: string;
}

function files(): readonly SchemaFile[] {
  const exchanged = Object.entries(SCHEMAS).map(([name, schema]) => [`${name}.json`, z.toJSONSchema(schema)] as const);
  // What commands print refers to one another's files: the plan inside of a limit is a plan summary.
  const outputs = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(OUTPUT_SCHEMAS)) outputs.add(schema, { id });
  const printed = z.toJSONSchema(outputs, { uri: (id) => `${id}.json` }).schemas;
  return [...exchanged, ...Object.entries(printed).map(([id, schema]) => [`cli/${id}.json`, schema] as const)].map(([name, schema]) => ({
    name,
    path: fileURLToPath(new URL(`../schemas/${name}`, import.meta.url)),
    text: `${JSON.stringify(schema, null, 2)}\n`,
  }));
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

await runScript(() => Promise.resolve(main()));
