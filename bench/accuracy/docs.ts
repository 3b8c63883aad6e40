/** `npm run docs:accuracy [-- --check]`: writes docs/accuracy.md from bench/results/accuracy.json, or says whether it is up to date. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseOptions, runScript } from '../../scripts/options.js';
import { FpdtError } from '../../src/index.js';
import { accuracyDocument, type Recorded } from './document.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const RESULT = `${ROOT}bench/results/accuracy.json`;
const DOCUMENT = `${ROOT}docs/accuracy.md`;

async function main(): Promise<void> {
  const { values } = parseOptions({ options: { check: { type: 'boolean', default: false } } });
  const text = accuracyDocument(JSON.parse(readFileSync(RESULT, 'utf8')) as Recorded);
  if (!values.check) writeFileSync(DOCUMENT, text);
  else if (readFileSync(DOCUMENT, 'utf8') !== text) {
    throw new FpdtError(`${DOCUMENT} is not what ${RESULT} says`, { code: 'out-of-date', hint: 'npm run docs:accuracy' });
  }
}

await runScript(main);
