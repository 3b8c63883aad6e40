/** What a user may not expect of a folder of weights: that its config is not the one of the plan. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type JsonObject, readJsonObject } from '../spec/parseJson.js';

/** Keys that do not change what a model computes here. */
const UNIMPORTANT = new Set([
  '_name_or_path',
  'architectures',
  'auto_map',
  'bos_token_id',
  'dtype',
  'eos_token_id',
  'initializer_range',
  'torch_dtype',
  'transformers_version',
  'use_cache',
]);
const MAX_SHOWN = 4;

/** One line for all keys with other values; shapes that differ are an error of the ranks. Throws an FpdtError for a config that is no JSON. */
export function weightRemarks(folder: string, planned: JsonObject): readonly string[] {
  const path = join(folder, 'config.json');
  if (!existsSync(path)) return [];
  const given = readJsonObject(path, 'config of the weights');
  const keys = [...new Set([...Object.keys(planned), ...Object.keys(given)])].filter((key) => !UNIMPORTANT.has(key));
  const differing = keys.filter((key) => show(planned[key]) !== show(given[key]));
  if (differing.length === 0) return [];
  const shown = differing.slice(0, MAX_SHOWN).map((key) => `${key} ${show(planned[key])} (weights: ${show(given[key])})`);
  const more = differing.length > MAX_SHOWN ? `, and ${differing.length - MAX_SHOWN} more` : '';
  return [`the plan's model config is not that of the weights in ${folder}: ${shown.join(', ')}${more}`];
}

function show(value: unknown): string {
  return value === undefined || value === null ? 'absent' : JSON.stringify(value);
}
