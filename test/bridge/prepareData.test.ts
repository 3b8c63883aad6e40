import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DataChoices, dataFlags, dataOptions } from '../../src/bridge/dataOptions.js';
import { prepareData, type PrepareContext, type PreparedData } from '../../src/bridge/prepareData.js';
import { resolvePython } from '../../src/bridge/python.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { PATIENCE_MS } from './patience.js';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-prepare-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function prepare(
  data: string,
  choices: DataChoices = {},
  changes: Partial<PrepareContext> = {},
  packing = true,
): Promise<PreparedData> {
  const plan = { model: { vocabSize: 64 }, run: { seqLen: 4, packing } } as unknown as ExecutionPlan;
  const options = { data: join(folder, data), dataOptions: dataOptions(choices) };
  return prepareData(plan, options, { python: resolvePython(), environment: process.env, ...changes });
}

function rows(name: string, ...ids: readonly number[][]): string {
  writeFileSync(join(folder, name), ids.map((row) => `${JSON.stringify({ input_ids: row })}\n`).join(''));
  return name;
}

describe('prepareData', { timeout: PATIENCE_MS }, () => {
  test('makes a store of rows, and says what it found', async () => {
    const found = await prepare(rows('a.jsonl', [1, 2], [3, 4, 5]), { dataCache: join(folder, 'cache') });
    expect(found).toMatchObject({ tokens: 5, documents: 2, cut: expect.stringContaining('packed into 4 tokens') });
    expect(readdirSync(found.folder ?? '').sort()).toEqual(['places.bin', 'starts.bin', 'store.json', 'tokens.bin']);
  });

  test('makes nothing of data that ranks read as it is', async () => {
    writeFileSync(join(folder, 'text.txt'), 'abcdefgh');
    expect(await prepare('text.txt', {}, {}, false)).toEqual({
      tokens: 8,
      documents: null,
      folder: null,
      cut: 'slices of 4 tokens',
      remark: null,
    });
  });

  test('says where documents are not kept apart', async () => {
    const found = await prepare(rows('d.jsonl', [1, 2, 3], [4, 5, 6]), {}, {}, false);
    expect(found.remark).toMatch(/attention goes across the documents .* --packing/);
    expect((await prepare('d.jsonl')).remark).toBeNull();
  });

  test('throws what is wrong with the data, with a hint', async () => {
    await expect(prepare(rows('long.jsonl', [1], [1, 2, 3, 4, 5]))).rejects.toMatchObject({
      code: 'data-refused',
      message: expect.stringMatching(/^line 2 of .*long\.jsonl has 5 tokens, a sequence has seqLen=4/),
      hint: expect.stringContaining('--long-documents split'),
    });
    expect(await prepare('long.jsonl', { longDocuments: 'split' })).toMatchObject({ documents: 2 });
  });

  test('a Python that is none, or breaks, is told with what it said', async () => {
    const data = rows('b.jsonl', [1]);
    await expect(prepare(data, {}, { python: 'no-such-python' })).rejects.toMatchObject({ code: 'prepare-failed' });
    const environment = { ...process.env, PYTHONHOME: folder };
    await expect(prepare(data, {}, { environment })).rejects.toMatchObject({
      code: 'prepare-failed',
      details: { stderr: expect.stringMatching(/\S/) },
    });
  });

  test('a signal ends it', async () => {
    const signal = AbortSignal.abort('interrupted');
    await expect(prepare(rows('c.jsonl', [1]), {}, { signal })).rejects.toMatchObject({ code: 'run-aborted' });
  });
});

test('choices become the flags of Python, and none where nothing was chosen', () => {
  expect(dataOptions({})).toBeNull();
  expect(dataFlags({ data: 'x', dataOptions: null })).toEqual(['--data=x']);
  const all = dataOptions({
    tokenizer: 't',
    dataField: 'f',
    dataWeights: 'w',
    dataDtype: 'uint16',
    shuffle: false,
    dataSeed: 0,
    longDocuments: 'truncate',
    dataCache: 'c',
  });
  expect(dataFlags({ data: '-x', dataOptions: all })).toEqual([
    '--data=-x',
    '--tokenizer=t',
    '--data-field=f',
    '--data-weights=w',
    '--data-dtype=uint16',
    '--data-seed=0',
    '--long-documents=truncate',
    '--data-cache=c',
    '--no-shuffle',
  ]);
});
