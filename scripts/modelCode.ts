/**
 * What the planner makes of Hugging Face configs: a JSON array of `{ config, dtype, rows, training }` on a line of stdin becomes one of
 * `{ model, parameters, peaks, work, remarks }` on a line, or `{ error, hint }` for a config that is refused. Peaks are the bytes that each code makes
 * inside when it runs on that many rows, work what it computes and moves, for tests that measure them.
 *
 *     echo '[{ "config": { "model_type": "llama", ... }, "dtype": "float32", "rows": 16 }]' | node --import tsx scripts/modelCode.ts
 */
import { createInterface } from 'node:readline';
import * as z from 'zod';
import { configRemarks } from '../src/catalog/configRemarks.js';
import { parameterTable, parseModel } from '../src/catalog/index.js';
import { type CodeWork, peakBytes, workOf } from '../src/catalog/model/liveness.js';
import { DTYPE_BYTES, MODEL_DTYPES } from '../src/spec/dtype.js';
import { FpdtError } from '../src/spec/errors.js';
import type { Code, LayerCode, ModelCode } from '../src/spec/modelCode.js';
import { parseLora } from '../src/spec/loraConfig.js';
import { parseWith } from '../src/spec/parseJson.js';
import { runScript } from './options.js';

const entrySchema = z.strictObject({
  config: z.record(z.string(), z.unknown()),
  dtype: z.enum(MODEL_DTYPES),
  rows: z.int().positive(),
  /** As `run` has them. */
  training: z
    .strictObject({ freeze: z.array(z.string()).optional(), lora: z.union([z.string(), z.looseObject({})]).optional() })
    .optional(),
});
type Entry = z.infer<typeof entrySchema>;

/** Of the ends, and of each class of layers. */
interface ByCode<T> {
  readonly ends: Readonly<Record<string, T>>;
  readonly layers: readonly Readonly<Record<string, T>>[];
}

await runScript(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const entries = parseWith(z.array(entrySchema), jsonOf(line), 'stdin');
    console.log(JSON.stringify(entries.map(answer)));
  }
});

function jsonOf(input: string): unknown {
  try {
    return JSON.parse(input);
  } catch (cause) {
    const hint = 'give a JSON array of { config, dtype, rows } on each line';
    throw new FpdtError(`stdin is not JSON: ${(cause as Error).message}`, { code: 'not-json', hint, cause });
  }
}

function answer({ config, dtype, rows, training: { freeze, lora } = {} }: Entry): unknown {
  try {
    const model = parseModel(config, { freeze, lora: lora === undefined ? undefined : parseLora(lora) });
    return {
      model,
      parameters: parameterTable(model),
      peaks: byCode(model.code, (code): number => peakBytes(code, rows, DTYPE_BYTES[dtype])),
      work: byCode(model.code, (code): CodeWork => workOf(code, rows, DTYPE_BYTES[dtype])),
      remarks: configRemarks(model),
    };
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    return { error: error.message, hint: error.hint ?? null };
  }
}

function byCode<T>({ embed, embedBwd, head, headBwd, classes }: ModelCode, find: (code: Code) => T): ByCode<T> {
  const all = (codes: Readonly<Record<string, Code>>): Readonly<Record<string, T>> =>
    Object.fromEntries(Object.entries(codes).map(([name, one]) => [name, find(one)]));
  const ofLayer = ({ attention: _attention, ...codes }: LayerCode): Readonly<Record<string, T>> => all(codes);
  return { ends: all({ embed, embedBwd, head, headBwd }), layers: classes.map(ofLayer) };
}
