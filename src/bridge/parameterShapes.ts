/** Asks transformers which parameters a model has, and holds the planner's table against its answer. */

import { join } from 'node:path';
import * as z from 'zod';
import { layerParameters } from '../catalog/parameters.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { FpdtError } from '../spec/errors.js';
import type { ModelSpec, ParameterView } from '../spec/types.js';
import { callPython } from './pythonCall.js';
import { PYTHON_FOLDER, SETUP_HINT } from './python.js';

export interface ParameterShapes {
  /** Of every parameter by its full name; a tied weight under each of its names. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  /** Of the whole model, a tied weight counted once. */
  readonly numParameters: number;
}

const answerSchema = z.strictObject({
  shapes: z.record(z.string(), z.array(z.int().nonnegative())),
  numParameters: z.int().nonnegative(),
});
const IDLE_SECONDS = 60;

/** Builds the model, with its adapters, on the meta device, without memory for weights. Throws `python-call-failed` with the traceback. */
export async function askParameterShapes(
  { hfConfig, lora }: Pick<ModelSpec, 'hfConfig' | 'lora'>,
  options: { readonly python: string; readonly idleSeconds?: number },
): Promise<ParameterShapes> {
  const answer = await callPython({
    python: options.python,
    file: join(PYTHON_FOLDER, 'fpdt', 'models', 'shapes.py'),
    name: 'parameter_shapes',
    arguments: { hf_config: hfConfig, ...(lora === undefined ? {} : { lora }) },
    idleSeconds: options.idleSeconds ?? IDLE_SECONDS,
    hint: SETUP_HINT,
  });
  return answerSchema.parse(answer);
}

/** Throws `parameters-differ`, naming the first weights that differ, when the planner's table is not the model's. */
export function checkParameters(plan: Pick<ExecutionPlan, 'model' | 'parameters'>, found: ParameterShapes): void {
  const planned = plannedShapes(plan);
  const names = [...new Set([...planned.keys(), ...Object.keys(found.shapes)])].sort();
  const differences = names.flatMap((name) => {
    const [mine, theirs] = [show(planned.get(name)), show(found.shapes[name])];
    return mine === theirs || isTiedAlias(name, plan, found) ? [] : [`${name}: planned ${mine}, transformers has ${theirs}`];
  });
  if (plan.parameters.numModelParameters !== found.numParameters) {
    differences.push(`planned ${plan.parameters.numModelParameters} parameters in all, transformers has ${found.numParameters}`);
  }
  if (differences.length === 0) return;
  throw new FpdtError(`the planned parameters are not the model's: ${differences.slice(0, 3).join('; ')}`, {
    code: 'parameters-differ',
    hint: 'the config asks for weights that the catalog entry of its family does not know',
    details: { differences },
  });
}

function plannedShapes({ model, parameters }: Pick<ExecutionPlan, 'model' | 'parameters'>): Map<string, readonly number[]> {
  const layers = Array.from({ length: model.numLayers }, (_, layer) =>
    withPrefix(`${model.code.layers}.${layer}.`, layerParameters(parameters, model, layer).weights),
  );
  return new Map([...layers.flat(), ...withPrefix('', parameters.head), ...withPrefix('', parameters.embed)]);
}

function withPrefix(prefix: string, views: readonly ParameterView[]): [string, readonly number[]][] {
  return views.map(({ name, shape }) => [prefix + name, shape]);
}

/** A tied weight has two names, of which the planner may list one. The table of tokens is the embedding's first. */
function isTiedAlias(
  name: string,
  { model, parameters }: Pick<ExecutionPlan, 'model' | 'parameters'>,
  { shapes }: ParameterShapes,
): boolean {
  const [tokens] = parameters.embed;
  return model.tieWordEmbeddings && name === `${model.code.lmHead.module}.weight` && show(shapes[name]) === show(tokens?.shape);
}

function show(shape: readonly number[] | undefined): string {
  return shape === undefined ? 'nothing' : `[${shape.join(', ')}]`;
}
