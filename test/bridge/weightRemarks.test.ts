import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { weightRemarks } from '../../src/bridge/weightRemarks.js';
import { collect, runEcho } from './echoRun.js';

const PLANNED = { model_type: 'llama', hidden_size: 8, rope_theta: 500_000, dtype: 'float32' };

function folderWith(config: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'weights-'));
  writeFileSync(join(folder, 'config.json'), config);
  return folder;
}

test('a config that computes something else is told', () => {
  const same = folderWith(JSON.stringify({ ...PLANNED, dtype: 'bfloat16', transformers_version: '5', head_dim: null }));
  expect(weightRemarks(same, PLANNED)).toEqual([]);
  const saved = { architectures: ['LlamaForCausalLM'], temperature: 0.6, num_labels: 3, initializer_range: 0.1, eos_token_id: [1, 2] };
  expect(weightRemarks(folderWith(JSON.stringify({ ...PLANNED, ...saved })), PLANNED)).toEqual([]);
  const other = folderWith(JSON.stringify({ ...PLANNED, rope_theta: 10_000, rms_norm_eps: 1e-6 }));
  expect(weightRemarks(other, PLANNED)).toEqual([
    `the plan's model config is not that of the weights in ${other}: rope_theta 500000 (weights: 10000), rms_norm_eps absent (weights: 0.000001)`,
  ]);
  const kin = folderWith(JSON.stringify({ ...PLANNED, model_type: 'mistral', per_layer_config: [{}], pad_token_id: 0 }));
  expect(weightRemarks(kin, PLANNED)[0]).toMatch(
    /: model_type "llama" \(weights: "mistral"\), per_layer_config absent \(weights: \[\{\}\]\), pad_token_id absent/,
  );
  expect(weightRemarks(join(other, 'missing'), PLANNED)).toEqual([]);
  expect(() => weightRemarks(folderWith('{'), PLANNED)).toThrow(/^config of the weights '.*', line 1, column/);
});

test('remarks are the first events of a run', async () => {
  const [first] = await collect(await runEcho('ok', { remarks: ['look at this'] }));
  expect(first).toEqual({ type: 'log', rank: null, stream: 'stderr', line: 'look at this' });
});
