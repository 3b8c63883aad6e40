/** Kernels beside attention: which a plan names, and that none costs more than its plain twin. */
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { blocksOf, FUSED_KERNELS, fusedKernels } from '../../src/catalog/fusedKernels.js';
import { parseModel } from '../../src/catalog/index.js';
import { defaultKernels } from '../../src/catalog/kernels.js';
import { peakBytes } from '../../src/catalog/model/liveness.js';
import { takenBy } from '../../src/catalog/model/reuse.js';
import { OP_KIND_NAMES, type OpKind, type OpSizes, opWork, temporaryBytes } from '../../src/catalog/ops/index.js';
import { planRun } from '../../src/index.js';
import { decodePlan } from '../../src/plan/decode.js';
import { encodePlan } from '../../src/plan/encode.js';
import { planSummary } from '../../src/plan/summary.js';
import { MODEL_DTYPES, type ModelDtype } from '../../src/spec/dtype.js';
import { parseKernels } from '../../src/spec/kernelChoices.js';
import { errorOf, LLAMA } from '../spec/inputs.js';
import { BUFFERS, sampleOp, sampleSizes } from './opSamples.js';

const DEVICES = ['cpu', 'cuda'] as const;
const LARGE = parseModel({
  ...LLAMA,
  hidden_size: 4096,
  intermediate_size: 14_336,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 128,
  vocab_size: 128_256,
});
const CAPPED = parseModel({ ...LLAMA, model_type: 'gemma2', head_dim: 16, query_pre_attn_scalar: 24, vocab_size: 999 });

function sizesOf(model: typeof LARGE, dtype: ModelDtype, device: 'cpu' | 'cuda', isFused: boolean): OpSizes {
  const kernels = defaultKernels(device);
  return sampleSizes({ model, dtype, device, kernels: isFused ? { ...kernels, fused: fusedKernels({ dtype, device }) } : kernels });
}

const of = (dtype: ModelDtype) => ({ dtype, device: 'cpu' }) as const;

test('a half dtype has all of them, fp32 those that help it', () => {
  const { blockBytes, ...ofHalf } = fusedKernels(of('bfloat16'));
  expect(ofHalf).toEqual(FUSED_KERNELS);
  expect(fusedKernels(of('float16'))).toEqual(fusedKernels(of('bfloat16')));
  const { loss: _loss, weightGradient: _weightGradient, ...ofAll } = FUSED_KERNELS;
  expect(fusedKernels(of('float32'))).toEqual({ ...ofAll, blockBytes });
});

test('what a run asks for goes before that, kind by kind', () => {
  const { blockBytes, ...ofHalf } = fusedKernels(of('bfloat16'), { norm: 'plain', loss: 'inplace' });
  const { norm: _norm, ...others } = FUSED_KERNELS;
  expect(ofHalf).toEqual(others);
  expect(fusedKernels(of('float32'), { loss: 'inplace' })).toHaveProperty('loss', 'inplace');
  expect(fusedKernels(of('bfloat16'), parseKernels('plain'))).toEqual({ blockBytes });
});

test('a plan of plain kernels has none of their features, and says so', async () => {
  const input = { model: LLAMA, cluster: { gpus: 1, gpu: 'a100-80gb' }, deepspeed: {} } as const;
  const [plain, fused] = await Promise.all(['plain', 'auto'].map((kernels) => planRun({ ...input, run: { seqLen: 512, kernels } })));
  const features = /^(loss-inplace|merge-lerp|norm-|rope-|elementwise-|weight-gradient-)/;
  expect(plain?.features.filter((name) => features.test(name))).toEqual([]);
  expect(fused?.features).toContain('norm-vectornorm');
  expect(plain === undefined ? '' : planSummary(plain)).toContain('Kernels     plain\n');
  expect(plain === undefined ? '' : decodePlan(encodePlan(plain)).run.kernels).toHaveProperty('norm', 'plain');
});

test('blocks have at least a row, and all rows together', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 1, max: 9999 }),
      (all, bytes, blockBytes) => {
        const { rows, count } = blocksOf(all, bytes, { blockBytes });
        expect(rows * (count - 1)).toBeLessThan(all);
        expect(rows * count).toBeGreaterThanOrEqual(all);
        expect(rows === 1 || rows * bytes <= blockBytes).toBe(true);
      },
    ),
  );
  expect(blocksOf(77, 5, undefined)).toEqual({ rows: 77, count: 1 });
});

describe.each([LARGE, CAPPED, parseModel(LLAMA)])('of $family with a vocabulary of $vocabSize', (model) => {
  it.each(MODEL_DTYPES.flatMap((dtype) => DEVICES.map((device) => [dtype, device] as const)))('in %s on %s', (dtype, device) => {
    const [plain, fused] = [false, true].map((isFused) => sizesOf(model, dtype, device, isFused)) as [OpSizes, OpSizes];
    for (const kind of OP_KIND_NAMES.filter((name) => !EXTERNAL.has(name))) {
      for (const rows of [1, 64, 256, 4096]) {
        const cost = (sizes: OpSizes): readonly number[] => {
          const { elementBytes, kernels, matmulFlops } = opWork(sampleOp(kind, rows), undefined, BUFFERS, sizes);
          return [temporaryBytes(sampleOp(kind, rows), undefined, BUFFERS, sizes), elementBytes, matmulFlops, kernels];
        };
        const [before, after] = [cost(plain), cost(fused)];
        // A loss keeps a few more numbers of a row, and multiplies by a softcap in fp32; of a logsumexp on a CPU the inside is not counted.
        const perLogit = (model === CAPPED ? 8 : 0) + (kind === 'lossOnly' && device === 'cpu' ? 16 : 0);
        const more = [16 * rows, perLogit * rows * model.vocabSize, 0];
        for (const [i, room] of more.entries())
          expect(after[i], `${kind} of ${rows} rows, ${i}`).toBeLessThanOrEqual((before[i] ?? 0) + room);
      }
    }
  });
});

const EXTERNAL: ReadonlySet<OpKind> = new Set(['gather', 'release', 'reduce', 'optimizerStep']);

describe('weight gradients by addmm', () => {
  const place = { dtype: 'bfloat16', device: 'cuda' } as const;
  const sizes = (weightGradient: 'blocks' | 'addmm'): OpSizes =>
    sampleSizes({ model: LARGE, ...place, kernels: { ...defaultKernels('cuda'), fused: fusedKernels(place, { weightGradient }) } });

  it.each(['loss', 'postBwd', 'preBwd'] as const)('of %s make nothing, with fewer bytes and launches', (kind) => {
    const [blocks, addmm] = (['blocks', 'addmm'] as const).map((name) => {
      const { elementBytes, kernels, matmulFlops } = opWork(sampleOp(kind, 256), undefined, BUFFERS, sizes(name));
      return { bytes: temporaryBytes(sampleOp(kind, 256), undefined, BUFFERS, sizes(name)), elementBytes, kernels, matmulFlops };
    });
    expect(addmm?.bytes).toBeLessThanOrEqual(blocks?.bytes ?? 0);
    expect(addmm?.elementBytes).toBeLessThan(blocks?.elementBytes ?? 0);
    expect(addmm?.kernels).toBeLessThan(blocks?.kernels ?? 0);
    expect(addmm?.matmulFlops).toBe(blocks?.matmulFlops);
  });

  it.each([
    [{ dtype: 'bfloat16', device: 'cpu' }, /runs on GPUs alone/, 'weightGradient=blocks'],
    [{ dtype: 'float32', device: 'cuda' }, /is for bfloat16 and float16/, 'leave it out'],
  ] as const)('are refused for %j', (refused, message, hint) => {
    const error = errorOf(() => fusedKernels(refused, { weightGradient: 'addmm' }));
    expect([error.code, error.hint]).toEqual(['unsupported', expect.stringContaining(hint)]);
    expect(error.message).toMatch(message);
  });

  it('stand in a plan that asks for them, as a feature', async () => {
    const cluster = { gpus: 1, gpu: 'h100-80gb' };
    const plan = await planRun({ model: LLAMA, cluster, run: { seqLen: 512, kernels: 'weightGradient=addmm' } });
    expect(plan.kernels.fused?.weightGradient).toBe('addmm');
    expect(plan.features).toContain('weight-gradient-addmm');
    expect(plan.features).not.toContain('weight-gradient-blocks');
  });
});

test('a large vocabulary needs a fraction of the scratch, and its loss takes less time for all its launches', () => {
  const [plain, fused] = [false, true].map((isFused) => {
    const sizes = sizesOf(LARGE, 'bfloat16', 'cuda', isFused);
    const { elementBytes, kernels } = opWork(sampleOp('loss', 256), undefined, BUFFERS, sizes);
    return { bytes: temporaryBytes(sampleOp('loss', 256), undefined, BUFFERS, sizes), seconds: elementBytes / 2.68e12 + kernels * 2e-6 };
  }) as [{ bytes: number; seconds: number }, { bytes: number; seconds: number }];
  expect(fused.bytes).toBeLessThan(0.2 * plain.bytes);
  expect(fused.seconds).toBeLessThan(plain.seconds);
});

test('of a gated MLP two widths are alive forward, and five in reverse', () => {
  const [layer] = parseModel({ ...LLAMA, intermediate_size: 4096 }).code.classes;
  const width = 4 * 4096;
  const widths = (code: 'post' | 'postBwd', isFused: boolean): number => {
    const place = { w: 4, fused: isFused ? fusedKernels(of('float32')) : undefined };
    return Math.floor(peakBytes(layer?.[code] ?? { instructions: [], widths: {} }, 1, place) / width);
  };
  expect([widths('post', false), widths('post', true)]).toEqual([3, 2]);
  expect([widths('postBwd', false), widths('postBwd', true)]).toEqual([6, 5]);
});

test('memory is taken of values alone that go with the instruction, and never from a view', () => {
  const code = parseModel(LLAMA).code.classes[0];
  const taken = [code?.post, code?.postBwd, code?.postBwdKept, code?.preBwd].flatMap((one) =>
    (one?.instructions ?? []).flatMap((instruction) => {
      const names = takenBy(instruction);
      const makers = new Map((one?.instructions ?? []).flatMap(({ op, writes }) => writes.map((name) => [name, op] as const)));
      for (const name of names) {
        expect(instruction.frees).toContain(name);
        expect(['load', 'cast', undefined]).not.toContain(makers.get(name));
      }
      return names.length > 0 ? [instruction.op] : [];
    }),
  );
  expect(new Set(taken)).toEqual(new Set(['activation', 'multiply', 'add', 'multiplyBwd', 'activationBwd']));
});
