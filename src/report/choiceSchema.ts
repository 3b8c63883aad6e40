/** Schema of why a plan has its strategy. */
import * as z from 'zod';
import type { Shape } from '../plan/headerSpecs.js';
import type { ChoiceExplanation, KnobEffect } from '../strategy/explain/choice.js';

const seconds = z.number().nonnegative();

const knobSchema = z.strictObject({
  knob: z.string(),
  value: z.string(),
  fits: z.boolean(),
  stepSeconds: seconds,
  pools: z.array(z.strictObject({ pool: z.string(), moreBytes: z.number() })),
} satisfies Shape<KnobEffect>);

export const choiceSchema = z.strictObject({
  kind: z.literal('choiceExplanation'),
  stepSeconds: seconds,
  computeSeconds: seconds,
  pools: z.array(z.strictObject({ pool: z.string(), stepSeconds: seconds })),
  nextBest: knobSchema.nullable(),
  knobs: z.array(knobSchema),
} satisfies Shape<ChoiceExplanation>);
