/** Plans on disk: one JSON file with the header as text and base64 columns, written whole or not at all. */
import { readFile } from 'node:fs/promises';
import { describe } from '../spec/describe.js';
import { FpdtError } from '../spec/errors.js';
import { isObject } from '../spec/parseJson.js';
import { isPlanOnly, planOnlyError } from '../spec/releasedPrograms.js';
import { decodePlan } from './decode.js';
import { encodePlan } from './encode.js';
import { type ExecutionPlan, PLAN_VERSION, type UnsealedPlan } from './executionPlan.js';
import { damaged, wrongVersion } from './planErrors.js';
import { writeWholeFile } from './wholeFile.js';

const FILE_KIND = 'executionPlanFile';

/** Header and prose stay the text they were encoded as: the digest is over bytes, and no reader forms them again. */
export async function writePlanFile(plan: UnsealedPlan, path: string): Promise<void> {
  const { header, prose, columns, digest } = encodePlan(plan);
  const file = {
    kind: FILE_KIND,
    version: PLAN_VERSION,
    digest,
    header: header.toString('utf8'),
    prose: prose.toString('utf8'),
    columns: Object.fromEntries(columns.map(({ name, data }) => [name, data.toString('base64')])),
  };
  await writeWholeFile(path, `${JSON.stringify(file)}\n`, 'the plan file');
}

/** Throws an FpdtError for a file that is missing, cut short, of another version or not what its digest says. */
export async function readPlanFile(path: string): Promise<ExecutionPlan> {
  const file = parseFile(await readText(path), path);
  const { kind, policy } = file;
  if (kind === 'releasedPlan' && typeof policy === 'string' && isPlanOnly(policy)) throw planOnlyError(policy, `${path} is no plan file`);
  if (kind !== FILE_KIND) {
    throw new FpdtError(`${path} is not a plan file: its kind is ${describe(kind)}, expected "${FILE_KIND}"`, {
      code: 'plan-file-kind',
      hint: 'give the file that `fpdt plan --output` wrote',
    });
  }
  if (file['version'] !== PLAN_VERSION) throw wrongVersion(file['version']);
  const { digest, header, prose, columns } = file;
  const hasText = typeof digest === 'string' && typeof header === 'string' && typeof prose === 'string';
  if (!hasText || !isObject(columns)) throw damaged(`${path} lacks a digest, header, prose or columns`);
  return decodePlan({
    header: Buffer.from(header, 'utf8'),
    prose: Buffer.from(prose, 'utf8'),
    columns: Object.entries(columns).map(([name, text]) => ({ name, data: Buffer.from(String(text), 'base64') })),
    digest,
  });
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      throw new FpdtError(`there is no plan file ${path}`, {
        code: 'plan-file-missing',
        hint: 'make one with `fpdt plan --output`',
        cause,
      });
    throw new FpdtError(`cannot read the plan file ${path}: ${code === 'EISDIR' ? 'it is a folder' : message}`, {
      code: 'plan-file-unreadable',
      hint: 'give the file that `fpdt plan --output` wrote',
      cause,
    });
  }
}

function parseFile(text: string, path: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch (cause) {
    throw new FpdtError(`${path} is not JSON, or was cut short: ${(cause as Error).message}`, {
      code: 'plan-file-not-json',
      hint: 'write the plan again with `fpdt plan --output`',
      cause,
    });
  }
  throw new FpdtError(`${path} does not hold a JSON object`, {
    code: 'plan-file-not-json',
    hint: 'give the file that `fpdt plan --output` wrote',
  });
}
