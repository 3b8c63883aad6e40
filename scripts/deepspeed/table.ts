/**
 * `npm run generate:deepspeed [-- --check]`: writes src/spec/deepspeedTable.json, which says what the installed DeepSpeed knows of a
 * ds_config. With --check it writes nothing, and fails where the file says something else.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { FpdtError } from '../../src/spec/errors.js';
import { parseOptions, runScript } from '../options.js';
import { deepspeedSays } from './deepspeedSays.js';

export const TABLE = fileURLToPath(new URL('../../src/spec/deepspeedTable.json', import.meta.url));

async function main(): Promise<void> {
  const { values } = parseOptions({ options: { check: { type: 'boolean', default: false } } });
  const found = await deepspeedSays('table');
  if (values.check) {
    if (JSON.stringify(JSON.parse(readFileSync(TABLE, 'utf8'))) === JSON.stringify(found)) return;
    throw new FpdtError('src/spec/deepspeedTable.json is not what the installed DeepSpeed says', {
      code: 'stale',
      hint: 'run npm run generate:deepspeed, and read the diff',
    });
  }
  writeFileSync(TABLE, JSON.stringify(found));
  await execa('npx', ['biome', 'format', '--write', TABLE]);
}

await runScript(main);
