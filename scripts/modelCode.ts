/**
 * What the planner makes of Hugging Face configs: a JSON array of `{ config, dtype, rows, training, kernels, blockBytes }` on a line of stdin becomes one
 * of `{ model, parameters, fused, peaks, work, ops, remarks }` on a line, or `{ error, hint }` for a config that is refused. Peaks are the bytes that each
 * code makes inside when it runs on that many rows, work what it computes and moves; `ops` has both of ops that are no code, on one rank; for tests
 * and benchmarks that measure them. `kernels` are those of plans, or what is asked for in the words of a run.
 *
 *     echo '[{ "config": { "model_type": "llama", ... }, "dtype": "float32", "rows": 16 }]' | node --import tsx scripts/modelCode.ts
 */
import { createInterface } from 'node:readline';
import * as z from 'zod';
import { configRemarks } from '../src/catalog/configRemarks.js';
import { type FusedKernels, fusedKernels } from '../src/catalog/fusedKernels.js';
import { parameterTable, parseModel } from '../src/catalog/index.js';
import { defaultKernels } from '../src/catalog/kernels.js';
import { type CodeWork, peakBytes, workOf } from '../src/catalog/model/liveness.js';
import { type OpKind, opSizes, opWork, temporaryBytes } from '../src/catalog/ops/index.js';
import { DTYPE_BYTES, MODEL_DTYPES, type ModelDtype } from '../src/spec/dtype.js';
import { FpdtError } from '../src/spec/errors.js';
import { kernelChoicesSchema, parseKernels } from '../src/spec/kernelChoices.js';
import type { Code, LayerCode, ModelCode } from '../src/spec/modelCode.js';
import { parseLora } from '../src/spec/loraConfig.js';
import { parallelLayout } from '../src/spec/parallelLayout.js';
import { parseWith } from '../src/spec/parseJson.js';
import type { ModelSpec } from '../src/spec/types.js';
import { runScript } from './options.js';

const entrySchema = z.strictObject({
  config: z.record(z.string(), z.unknown()),
  dtype: z.enum(MODEL_DTYPES),
  rows: z.int().positive(),
  kernels: z.union([z.string(), kernelChoicesSchema]).default('auto'),
  /** In place of the plans' own. */
  blockBytes: z.int().positive().optional(),
  /** As `run` has them. */
  training: z
    .strictObject({ freeze: z.array(z.string()).optional(), lora: z.union([z.string(), z.looseObject({})]).optional() })
    .optional(),
});
type Entry = z.infer<typeof entrySchema>;

/** What stands outside a model's code and has kernels of its own. */
const OPS = ['loss', 'lossWeighted', 'lossOnly', 'merge'] as const;

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

function answer({ config, dtype, rows, kernels, blockBytes, training: { freeze, lora } = {} }: Entry): unknown {
  try {
    const model = parseModel(config, { freeze, lora: lora === undefined ? undefined : parseLora(lora) });
    const planned = fusedKernels({ dtype, device: 'cuda' }, parseKernels(kernels));
    const fused = { ...planned, blockBytes: blockBytes ?? planned.blockBytes };
    const place = { w: DTYPE_BYTES[dtype], fused };
    return {
      model,
      parameters: parameterTable(model),
      fused,
      peaks: byCode(model.code, (code): number => peakBytes(code, rows, place)),
      work: byCode(model.code, (code): CodeWork => workOf(code, rows, place)),
      ops: ofOps(model, dtype, rows, fused),
      remarks: configRemarks(model),
    };
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    return { error: error.message, hint: error.hint ?? null };
  }
}

function ofOps(model: ModelSpec, dtype: ModelDtype, rows: number, fused: FusedKernels): object {
  const parameters = parameterTable(model);
  const layout = parallelLayout(model, { sequenceParallelSize: 1, dataParallelSize: 1 }, 1);
  const kernels = { ...defaultKernels('cpu'), fused };
  const sizes = opSizes({ model, run: { dtype }, parameters, layout, device: 'cpu', kernels });
  const tokens = { start: 0, end: rows };
  const ofOp = (kind: OpKind): object => {
    const op = { kind, tokens, reads: [{ buffer: 0, rows: tokens }], writes: [], accumulates: [] };
    const { elementBytes, kernels: numKernels } = opWork(op, undefined, [], sizes);
    return { temporaries: temporaryBytes(op, undefined, [], sizes), elementBytes, kernels: numKernels };
  };
  return Object.fromEntries(OPS.map((kind) => [kind, ofOp(kind)]));
}

function byCode<T>({ embed, embedBwd, head, headBwd, classes }: ModelCode, find: (code: Code) => T): ByCode<T> {
  const all = (codes: Readonly<Record<string, Code>>): Readonly<Record<string, T>> =>
    Object.fromEntries(Object.entries(codes).map(([name, one]) => [name, find(one)]));
  const ofLayer = ({ attention: _attention, ...codes }: LayerCode): Readonly<Record<string, T>> => all(codes);
  return { ends: all({ embed, embedBwd, head, headBwd }), layers: classes.map(ofLayer) };
}
