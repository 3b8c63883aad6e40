/** Values of transformers' TrainingArguments (5.23.0) where nothing else is said: with them its DeepSpeed integration fills "auto". */
import { isObject, type JsonObject } from './parseJson.js';

export interface HfArguments {
  readonly learningRate: number;
  readonly betas: readonly number[];
  readonly eps: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
}

/** A learning rate that the optimizer names is also where a scheduler's warm-up ends. */
export function hfArguments({ optimizer }: JsonObject): HfArguments {
  const params = isObject(optimizer) ? optimizer.params : undefined;
  const given = isObject(params) ? params.lr : undefined;
  return { learningRate: typeof given === 'number' ? given : 5e-5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1.0 };
}
