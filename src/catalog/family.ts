/** What a model family must provide: one entry per family, in index.ts. */
import type { JsonObject } from '../spec/parseJson.js';
import type { ModelSpec, ParameterTable } from '../spec/types.js';

export interface ModelFamily {
  /** Also the name of the worker's family. */
  readonly name: string;
  /** `model_type` values of Hugging Face configs that it takes. */
  readonly modelTypes: readonly string[];
  readonly translate: (config: JsonObject) => ModelSpec;
  readonly parameterTable: (model: ModelSpec) => ParameterTable;
}
