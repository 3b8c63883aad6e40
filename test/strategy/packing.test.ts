import { describe, expect, it } from 'vitest';
import { type ExecutionPlan, planReleased, planRun, planSummary } from '../../src/index.js';
import { smallModel } from '../../scripts/parity/setting.js';

const MODEL = smallModel({ numHeads: 8, numKvHeads: 4, tied: false, window: null });

function planned(run: Record<string, unknown>, gpu = 'cpu'): Promise<ExecutionPlan> {
  const dtype = gpu === 'cpu' ? 'float32' : 'bfloat16';
  return planRun({
    model: MODEL,
    cluster: { gpus: 1, gpu },
    deepspeed: { train_micro_batch_size_per_gpu: 1 },
    run: { seqLen: 1024, numChunks: 4, dtype, ...run },
  });
}

describe('a plan for packing', () => {
  it('has a feature, a table of weights that the loss reads, and says what its prediction is of', async () => {
    const [packing, whole] = await Promise.all([planned({ packing: true }), planned({})]);
    expect(packing.features).toContain('packing');
    expect(packing.tables.map(({ name, dtype }) => `${name} ${dtype}`)).toEqual([
      ...whole.tables.map(({ name }) => `${name} int64`),
      'weights float32',
    ]);
    const kinds = new Set(packing.sections.flatMap(({ ops }) => ops.map(({ kind }) => kind)));
    expect([kinds.has('lossWeighted'), kinds.has('loss')]).toEqual([true, false]);
    expect(planSummary(packing)).toContain('time and copies are those of one document of 1024 tokens in each sequence');
  });

  it('is none where packing is false or not said', async () => {
    const [said, left] = await Promise.all([planned({ packing: false }), planned({})]);
    expect(said.digest).toBe(left.digest);
    expect(left.features).not.toContain('packing');
    expect(left.run).not.toHaveProperty('packing');
  });

  it('takes a kernel that is right for any number of rows, and refuses by name one that is not', async () => {
    expect((await planned({}, 'h100-80gb')).kernels.attn).toBe('cudnn');
    expect((await planned({ packing: true }, 'h100-80gb')).kernels.attn).toBe('flash2');
    await expect(planned({ packing: true, attention: 'cudnn' }, 'h100-80gb')).rejects.toThrow(
      "the attention kernel 'cudnn' is right for multiples of 128 keys, to which chunks, or documents, of this run are not padded",
    );
  });

  it('is asked for with true or false', async () => {
    await expect(planned({ packing: 'documents' })).rejects.toThrow(/run.packing: expected true or false/);
  });

  it('is no business of released programs', () => {
    const input = { model: MODEL, cluster: { gpus: 1, gpu: 'h100-80gb' }, run: { seqLen: 1024, policy: 'upipe', packing: true } as const };
    expect(() => planReleased(input)).toThrow('run.packing is given, which upipe does not have');
  });
});

describe('sliding windows', () => {
  it('attend to no chunk outside of them, and fetch none', async () => {
    const [window, chunkTokens] = [20, 8];
    const strategy = { layers: [{ layers: [0, 4], keyValues: 'host', keyValueGradients: 'host', backwardOrder: 'queryOuterDescending' }] };
    const plan = await planRun({
      model: smallModel({ numHeads: 8, numKvHeads: 4, tied: false, window }),
      cluster: { gpus: 1, gpu: 'cpu' },
      deepspeed: { train_micro_batch_size_per_gpu: 1 },
      run: { seqLen: 128, numChunks: 16, dtype: 'float32', attention: 'reference', strategy },
    });
    const attention = plan.sections.flatMap(({ ops }) => ops.filter(({ kind }) => kind === 'attn' || kind === 'attnBwd'));
    expect(attention.length).toBeGreaterThan(0);
    for (const { tokens, kv } of attention) expect((kv?.end ?? 0) - 1).toBeGreaterThanOrEqual(tokens.start - window + 1);
    // A chunk of queries sees its own keys and those of the chunks that the window before its first query reaches into.
    const most = 1 + Math.ceil((window - 1) / chunkTokens);
    const fetched = plan.sections.map(({ ops }) =>
      ops.filter(({ kind, reads }) => kind === 'copy' && plan.buffers[reads[0]?.buffer ?? -1]?.name === 'k@host'),
    );
    for (const copies of fetched) expect(copies.length).toBeLessThanOrEqual(16 * most);
    expect(Math.max(...fetched.map((copies) => copies.length))).toBeGreaterThan(16);
  });
});
