/**
 * What the planner makes of Hugging Face configs: a JSON array of `{ config, dtype, rows }` on stdin becomes one of
 * `{ model, parameters, peaks, remarks }`, or `{ error, hint }` for a config that is refused. Peaks are the bytes that each code makes inside
 * when it runs on that many rows, for tests that measure them.
 *
 *     echo '[{ "config": { "model_type": "llama", ... }, "dtype": "float32", "rows": 16 }]' | node --import tsx scripts/modelCode.ts
 */
import { text } from 'node:stream/consumers';
import { configRemarks } from '../src/catalog/configRemarks.js';
import { parameterTable, parseModel } from '../src/catalog/index.js';
import { peakBytes } from '../src/catalog/model/liveness.js';
import { DTYPE_BYTES, type Dtype } from '../src/spec/dtype.js';
import { FpdtError } from '../src/spec/errors.js';
import type { Code, LayerCode, ModelCode } from '../src/spec/modelCode.js';
import type { JsonObject } from '../src/spec/parseJson.js';
import { runScript } from './options.js';

interface Entry {
  readonly config: JsonObject;
  readonly dtype: Dtype;
  readonly rows: number;
}

type Peaks = Readonly<Record<string, number>>;

await runScript(async () => {
  const entries = JSON.parse(await text(process.stdin)) as readonly Entry[];
  console.log(JSON.stringify(entries.map(answer)));
});

function answer({ config, dtype, rows }: Entry): unknown {
  try {
    const model = parseModel(config);
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
