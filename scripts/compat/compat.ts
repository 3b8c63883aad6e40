/**
 * `npm run compat -- [--only TEXT] [--json]`: what becomes of ds_configs (dsConfigs.ts): planned with the values that DeepSpeed's own config
 * object has, refused by name, or refused by DeepSpeed too. Fails where one is planned with other values, though DeepSpeed refuses it, or
 * refused without being on the list.
 *
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
import { type ConfigVerdict, judgeConfigs } from './dsConfigs.js';

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

async function models(only: string, say: (text: string) => void): Promise<readonly Verdict[]> {
  const published = JSON.parse(readFileSync(CORPUS, 'utf8')) as readonly Published[];
  const corpus = published.filter(({ name }) => name.includes(only));
  if (corpus.length === 0) throw noneNamed('model', only, published[0]?.name);
  const verdicts = await withCounts(corpus.map(judge), corpus);
  for (const verdict of verdicts) say(line(verdict));
  return verdicts;
}

async function configs(only: string, say: (text: string) => void): Promise<readonly ConfigVerdict[]> {
  const verdicts = await judgeConfigs({ only, plans: true });
  if (verdicts.length === 0) throw noneNamed('ds_config', only, 'hf-zero3');
  for (const { name, verdict, message = '', differs, ok } of verdicts) {
    say(`${ok ? 'ok  ' : 'FAIL'} ${name.padEnd(32)} ${verdict.padEnd(24)} ${[...differs, message].join('; ')}`.trimEnd());
  }
  return verdicts;
}

function noneNamed(what: string, only: string, example: string | undefined): FpdtError {
  return new FpdtError(`--only: no ${what} has '${only}' in its name`, { code: 'usage', hint: `one is '${example}'` });
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: { models: { type: 'boolean' }, only: { type: 'string', default: '' }, json: { type: 'boolean', default: false } },
  });
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  const verdicts: readonly (Verdict | ConfigVerdict)[] = await (values.models === true ? models : configs)(values.only, say);
  const counts = new Map<string, number>();
  for (const { verdict } of verdicts) counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
  const bad = verdicts.filter(({ ok }) => !ok).length;
  if (values.json) {
    process.stdout.write(
      `${JSON.stringify({ kind: 'compatReport', [values.models === true ? 'models' : 'configs']: verdicts }, null, 1)}\n`,
    );
  }
  const said = [...counts].map(([verdict, count]) => `${count} ${verdict}`).join(', ');
  say(`compat ${bad === 0 ? 'ok' : 'failed'}: ${said}, ${bad} not as expected`);
  process.exitCode = bad === 0 ? 0 : 1;
}

await runScript(main);
