/**
 * `npm run compat -- --models [--only TEXT] [--json]`: what the planner says of the configs of published models, scripts/compat/models.json
 * (written down from their cards): planned, with transformers' own number of parameters, or refused by name. Fails where a number
 * differs, where a refusal is no error of the input, or where a verdict is not the expected one.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import { FpdtError } from '../../src/spec/errors.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { parseOptions, runScript } from '../options.js';
import { transformersSays } from '../transformersSays.js';

interface Published {
  readonly name: string;
  readonly config: JsonObject;
  /** A word of the message, where the model is one that is refused. */
  readonly refused?: string;
}

interface Verdict {
  readonly name: string;
  readonly modelType: unknown;
  readonly verdict: 'planned' | 'refused' | 'failed';
  readonly numParameters?: number;
  readonly ofTransformers?: number;
  readonly message?: string;
  readonly hint?: string | undefined;
  readonly ok: boolean;
}

const CORPUS = fileURLToPath(new URL('models.json', import.meta.url));
function judge({ name, config, refused }: Published): Verdict {
  const known = { name, modelType: config.model_type };
  try {
    const { numModelParameters } = parameterTable(parseModel(config));
    return { ...known, verdict: 'planned', numParameters: numModelParameters, ok: refused === undefined };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (!(error instanceof FpdtError)) return { ...known, verdict: 'failed', message, ok: false };
    return { ...known, verdict: 'refused', message, hint: error.hint, ok: refused !== undefined && message.includes(refused) };
  }
}

async function withCounts(verdicts: readonly Verdict[], corpus: readonly Published[]): Promise<readonly Verdict[]> {
  const planned = verdicts.map(({ verdict }) => verdict === 'planned');
  const said = (await transformersSays(corpus.filter((_, i) => planned[i]).map(({ config }) => config))).values();
  return verdicts.map((verdict, i) => {
    if (!planned[i]) return verdict;
    const { numParameters: count, error } = said.next().value ?? {};
    if (count === undefined) return { ...verdict, ok: false, message: `transformers: ${error}` };
    return { ...verdict, ofTransformers: count, ok: verdict.ok && count === verdict.numParameters };
  });
}

function line({ name, verdict, numParameters, ofTransformers, message, ok }: Verdict): string {
  const what = verdict === 'planned' ? `${numParameters} parameters${ok ? '' : `, transformers ${ofTransformers ?? message}`}` : message;
  return `${ok ? 'ok  ' : 'FAIL'} ${name.padEnd(36)} ${verdict.padEnd(8)} ${what}`;
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: { models: { type: 'boolean' }, only: { type: 'string', default: '' }, json: { type: 'boolean', default: false } },
  });
  const published = JSON.parse(readFileSync(CORPUS, 'utf8')) as readonly Published[];
  const corpus = published.filter(({ name }) => name.includes(values.only));
  if (values.models !== true) throw new FpdtError('nothing to check was named', { code: 'usage', hint: 'give --models' });
  if (corpus.length === 0) {
    throw new FpdtError(`--only: no model has '${values.only}' in its name`, { code: 'usage', hint: `one is '${published[0]?.name}'` });
  }
  const verdicts = await withCounts(corpus.map(judge), corpus);
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  for (const verdict of verdicts) say(line(verdict));
  const of = (kind: Verdict['verdict']): number => verdicts.filter(({ verdict }) => verdict === kind).length;
  const bad = verdicts.filter(({ ok }) => !ok).length;
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'compatReport', models: verdicts }, null, 1)}\n`);
  say(`compat ${bad === 0 ? 'ok' : 'failed'}: ${of('planned')} planned, ${of('refused')} refused, ${bad} not as expected`);
  process.exitCode = bad === 0 ? 0 : 1;
}

await runScript(main);
