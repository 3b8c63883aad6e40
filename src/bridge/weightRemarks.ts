/** What a user may not expect of a folder of weights: that its config is not the one of the plan. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { COMMON_KEYS } from '../catalog/model/keys.js';
import { type JsonObject, readJsonObject } from '../spec/parseJson.js';

/** Keys of families that change neither what a model computes nor its shapes: how weights are drawn, and where a text begins and ends. */
const OF_FAMILIES = ['initializer_range', 'bos_token_id', 'eos_token_id'];
const UNIMPORTANT: ReadonlySet<string> = new Set([...COMMON_KEYS.filter((key) => key !== 'model_type'), ...OF_FAMILIES]);
const MAX_SHOWN = 4;

/**
 * One line for all keys with other values; shapes that differ are an error of the ranks. Throws an FpdtError for a config that is no
 * JSON.
 */
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
