/** The section of a ds_config that is this project's: what a run asks of the planner. DeepSpeed does not look at it. */
import * as z from 'zod';
import type { DeepSpeedSource } from './deepspeedFile.js';
import { type JsonObject, parseWith } from './parseJson.js';
import { type RunInput, runInputSchema } from './runInput.js';

export const OURS = 'fpdt';

/** Nothing outside of the config is read for it, so files are not named there. */
const schema = runInputSchema.partial().extend({
  strategy: z.looseObject({}).optional(),
  lora: z.looseObject({}).optional(),
  /** Of a plan's resolved config. */
  remarks: z.array(z.string()).optional(),
});

export interface WithoutOurs {
  readonly source: DeepSpeedSource;
  /** What the section asks for; none of it where there is no section. */
  readonly asks: JsonObject;
}

/** A config apart from our section. Throws FpdtError with the path in it for what a run has no use for. */
export function takeOurs({ config, lines }: DeepSpeedSource): WithoutOurs {
  const { [OURS]: section, ...rest } = config;
  if (section === undefined || section === null) return { source: { config: rest, lines }, asks: {} };
  const { remarks: _, ...asks } = parseWith(schema, section, `deepspeed.${OURS}`);
  return { source: { config: rest, lines }, asks };
}

/** What the request says itself goes before the section. */
export function withAsked(asks: JsonObject, run: RunInput): JsonObject {
  const given = Object.entries(run).filter(([, value]) => value !== undefined);
  return { ...asks, ...Object.fromEntries(given) };
}
