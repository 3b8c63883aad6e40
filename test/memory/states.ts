/** Model states of a small model on 4 ranks, each test with its own settings of ZeRO-3. */
import { parameterTable } from '../../src/catalog/parameters.js';
import { modelStates, type ModelStatesInput } from '../../src/memory/modelStates.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import type { ModelSpec } from '../../src/spec/types.js';

/** `config`: keys of the ds_config beside `zero_optimization`. */
export function statesOf(...given: Parameters<typeof inputOf>) {
  return modelStates(inputOf(...given));
}

export function inputOf(model: ModelSpec, zero: object, more: Partial<ModelStatesInput> = {}, config: JsonObject = {}): ModelStatesInput {
  return {
    parameters: parameterTable(model),
    classOf: model.code.classOf,
    tieWordEmbeddings: false,
    run: { dtype: 'bfloat16', gradientAccumulationSteps: 1 },
    extraLayers: 0,
    numRanks: 4,
    device: 'cuda',
    deepspeed: { zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0, ...zero }, ...config },
    ...more,
  };
}

type Items = readonly { readonly name: string; readonly bytes: number }[];

export function bytesOf(items: Items, name: string): number {
  return items.find((item) => item.name === name)?.bytes ?? 0;
}
