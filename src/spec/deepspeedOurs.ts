/** The section of a ds_config that is this project's: what a run asks of the planner. DeepSpeed does not look at it. */
import * as z from 'zod';
import type { DeepSpeedSource } from './deepspeedFile.js';
import { DeepSpeedReport, type Problem } from './deepspeedReport.js';
import type { FpdtError } from './errors.js';
import { isObject, type JsonObject, problemsWith } from './parseJson.js';
import { parseRunInput, type RunInput, runInputSchema } from './runInput.js';

export const OURS = 'fpdt';

/** Nothing outside of the config is read for it, so files are not named there. */
const schema = runInputSchema.partial().extend({
  strategy: z.looseObject({}).optional(),
  lora: z.looseObject({}).optional(),
  /** Of a plan's resolved config. */
  remarks: z.array(z.string()).optional(),
  diskBytesPerParameter: z.number().optional(),
});

export interface Asked {
  /** Without the section; with what is wrong in it. */
  readonly source: DeepSpeedSource;
  readonly run: RunInput;
}

/**
 * A config apart from our section, and what a run asks for: what the request says, and for the rest the section. Throws FpdtError for a request
 * that is wrong, or where no length of sequence is right.
 */
export function askedOf(given: DeepSpeedSource, run: RunInput): Asked {
  const { [OURS]: section, ...config } = given.config;
  const problems = problemsOf(section);
  const source = { ...given, config, problems };
  const asked = { ...soundOf(section, problems), ...definedOf(run) };
  if (asked['seqLen'] === undefined) tellProblems(source);
  return { source, run: parseRunInput(asked) };
}

/** For who has no use for the rest of a config that is wrong. Throws FpdtError. */
export function tellProblems({ lines, problems = [] }: DeepSpeedSource): void {
  const report = new DeepSpeedReport(lines);
  report.add(...problems);
  report.throwIfAny();
}

function problemsOf(section: unknown): readonly Problem[] {
  if (section === undefined || section === null) return [];
  return problemsWith(schema, section, OURS).map(({ message, code, hint = '', details }: FpdtError) => {
    const { path, key } = details as { readonly path: string; readonly key?: string };
    if (key !== undefined) return { path: `${path}.${key}`, text: ': unknown key', code, hint, details: { key } };
    return { path, text: message.slice(path.length), code, hint };
  });
}

/** What of a section is right. */
function soundOf(section: unknown, problems: readonly Problem[]): JsonObject {
  if (!isObject(section)) return {};
  const wrong = new Set(['remarks', 'diskBytesPerParameter', ...problems.map(({ path }) => path.split('.')[1])]);
  return Object.fromEntries(Object.entries(section).filter(([key]) => !wrong.has(key)));
}

function definedOf(run: RunInput): JsonObject {
  return Object.fromEntries(Object.entries(run).filter(([, value]) => value !== undefined));
}
