/**
 * What the planner makes of Hugging Face configs: a JSON array of `{ config, dtype, rows, training }` on stdin becomes one of
 * `{ model, parameters, peaks, remarks }`, or `{ error, hint }` for a config that is refused. Peaks are the bytes that each code makes inside
 * when it runs on that many rows, for tests that measure them.
 *
 *     echo '[{ "config": { "model_type": "llama", ... }, "dtype": "float32", "rows": 16 }]' | node --import tsx scripts/modelCode.ts
 */
import { text } from 'node:stream/consumers';
import * as z from 'zod';
import { configRemarks } from '../src/catalog/configRemarks.js';
import { parameterTable, parseModel } from '../src/catalog/index.js';
import { peakBytes } from '../src/catalog/model/liveness.js';
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

type Peaks = Readonly<Record<string, number>>;

await runScript(async () => {
  const entries = parseWith(z.array(entrySchema), jsonOf(await text(process.stdin)), 'stdin');
  console.log(JSON.stringify(entries.map(answer)));
});

function jsonOf(input: string): unknown {
  try {
    return JSON.parse(input);
  } catch (cause) {
    const hint = 'give a JSON array of { config, dtype, rows }';
    throw new FpdtError(`stdin is not JSON: ${(cause as Error).message}`, { code: 'not-json', hint, cause });
  }
}

function answer({ config, dtype, rows, training: { freeze, lora } = {} }: Entry): unknown {
  try {
    const model = parseModel(config, { freeze, lora: lora === undefined ? undefined : parseLora(lora) });
    return {
      model,
      parameters: parameterTable(model),
      peaks: peaksOf(model.code, rows, DTYPE_BYTES[dtype]),
      remarks: configRemarks(model),
    };
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    return { error: error.message, hint: error.hint ?? null };
  }
}

/** Of the ends, and of each class of layers. */
function peaksOf(code: ModelCode, rows: number, w: number): { readonly ends: Peaks; readonly layers: readonly Peaks[] } {
  const peaks = (codes: Readonly<Record<string, Code>>): Peaks =>
    Object.fromEntries(Object.entries(codes).map(([name, one]) => [name, peakBytes(one, rows, w)]));
  const { embed, embedBwd, head, headBwd } = code;
  const ofLayer = ({ attention: _attention, ...codes }: LayerCode): Peaks => peaks(codes);
  return { ends: peaks({ embed, embedBwd, head, headBwd }), layers: code.classes.map(ofLayer) };
}
