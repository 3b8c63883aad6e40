/** The families of models, and the parameter table of one. Adding a family is a line here and a file beside it. */
import { FpdtError } from '../spec/errors.js';
import type { ModelSpec, ParameterTable } from '../spec/types.js';
import type { ModelFamily } from './family.js';
import { llama } from './llama.js';

export const FAMILIES: readonly ModelFamily[] = [llama];

export function parameterTable(model: ModelSpec): ParameterTable {
  return familyNamed(model.family).parameterTable(model);
}

function familyNamed(name: string): ModelFamily {
  const family = FAMILIES.find((candidate) => candidate.name === name);
  if (family !== undefined) return family;
  throw new FpdtError(`model.family: unknown family '${name}'`, {
    code: 'unsupported',
    hint: `known: ${FAMILIES.map((known) => known.name).join(', ')}`,
  });
}
