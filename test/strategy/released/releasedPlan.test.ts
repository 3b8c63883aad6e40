import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OUTPUT_SCHEMAS } from '../../../src/report/outputSchemas.js';
import { releasedToText } from '../../../src/report/releasedText.js';
import type { JsonObject } from '../../../src/spec/parseJson.js';
import { PLAN_ONLY_POLICIES, type PlanOnlyPolicy, type ReleasedInput } from '../../../src/spec/releasedPrograms.js';
import type { RunInput } from '../../../src/spec/runInput.js';
import { planReleased, type ReleasedPlan } from '../../../src/strategy/released/releasedPlan.js';
import { maxReleasedSeqLen } from '../../../src/strategy/released/limits.js';
import { maxSeqLen } from '../../../src/strategy/limits/maxSeqLen.js';
import { minGpus } from '../../../src/strategy/limits/minGpus.js';
import { planRun } from '../../../src/strategy/planRun.js';
import { errorOf } from '../../spec/inputs.js';

const LLAMA_8B = JSON.parse(readFileSync('examples/llama-3-8b.json', 'utf8')) as JsonObject;
const NO_DROPOUT = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 };
const ZERO_3 = { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } };

interface Asked {
  readonly run?: Partial<RunInput>;
  readonly released?: ReleasedInput | string;
  readonly cluster?: object;
  readonly deepspeed?: JsonObject;
  readonly model?: object;
}

function plan(policy: PlanOnlyPolicy, { run = {}, released, cluster = {}, deepspeed = ZERO_3, model = {} }: Asked = {}): ReleasedPlan {
  return planReleased({
    model: { ...LLAMA_8B, ...model },
    cluster: { gpus: 8, gpu: 'h100-80gb', ...cluster },
    run: { seqLen: '1M', policy, released, ...run },
    deepspeed,
  });
}

function secondsOf({ prediction }: ReleasedPlan, name: string): number {
  return prediction.terms.find((term) => term.name === name)?.seconds ?? 0;
}

function item({ memory }: ReleasedPlan, pool: string, name: string): number {
  const found = memory.pools.find((one) => one.pool === pool);
  const all = [...(found?.persistent ?? []), ...(found?.instants ?? []).flatMap(({ items }) => items)];
  return Math.max(0, ...all.filter((one) => one.name === name).map(({ bytes }) => bytes));
}

function peak({ memory }: ReleasedPlan, pool = 'hbm'): number {
  return memory.pools.find((one) => one.pool === pool)?.peakBytes ?? 0;
}

describe('the plan of a released program', () => {
  it.each(PLAN_ONLY_POLICIES)('%s: terms sum to the step, items to the peaks, JSON keeps to its schema', (policy) => {
    const made = plan(policy);
    const { prediction, memory, cost } = made;
    expect(prediction.terms.reduce((sum, { seconds }) => sum + seconds, 0)).toBeCloseTo(prediction.stepSeconds, 9);
    expect(prediction.terms.map(({ seconds }) => seconds)).toEqual(prediction.terms.map(({ seconds }) => seconds).sort((a, b) => b - a));
    expect(prediction.tokensPerSecond).toBeCloseTo(2 ** 20 / prediction.stepSeconds, 6);
    expect(cost.gpuHoursPerStep).toBeCloseTo((8 * prediction.stepSeconds) / 3600, 9);
    for (const { persistent, instants, peakBytes } of memory.pools) {
      const base = persistent.reduce((sum, { bytes }) => sum + bytes, 0);
      for (const { items, totalBytes } of instants) expect(totalBytes).toBe(base + items.reduce((sum, { bytes }) => sum + bytes, 0));
      expect(peakBytes).toBe(Math.max(...instants.map(({ totalBytes }) => totalBytes)));
    }
    const printed = JSON.parse(JSON.stringify(made)) as unknown;
    expect(OUTPUT_SCHEMAS.releasedPlan.parse(printed)).toEqual(printed);
    expect(plan(policy)).toEqual(made);
    expect(releasedToText(made)).toMatch(
      new RegExp(`^Plan-only   ${policy}, a model of a released program without a schedule: use --policy \\w+`, 'm'),
    );
  });

  it('has the sizes of full-length tensors, by hand', () => {
    const made = plan('alst-released');
    const hidden = (2 ** 20 / 8) * 4096 * 2;
    expect(item(made, 'hbm', 'q, o')).toBe(2 * 2 ** 20 * 512 * 2);
    expect(item(made, 'hbm', 'k, v')).toBe(2 * 2 ** 20 * 128 * 2);
    expect(item(made, 'hbm', 'gradient of q in fp32')).toBe(2 ** 20 * 512 * 4);
    expect(item(made, 'host', 'checkpoints of all layers')).toBe(32 * hidden);
    expect(item(plan('fpdt-released'), 'hbm', 'gradient of the norm, in chunks and joined')).toBe(2 * hidden);
    expect(item(plan('upipe'), 'hbm', 'queries of a stage')).toBe(4 * (hidden / 4));
  });

  it('takes attention by the rates of its kernel: two forwards and a backward of half the square', () => {
    const made = plan('alst-released');
    const forward = 4 * (2 ** 40 / 2) * 512 * 32;
    expect(secondsOf(made, 'attention forward')).toBeCloseTo((2 * forward) / 370e12, 1);
    expect(secondsOf(made, 'attention backward') / ((2.5 * forward) / 322e12)).toBeCloseTo(1, 2);
    expect(plan('upipe').kernel).toBe('flash3');
    expect(plan('upipe', { cluster: { gpu: 'a100-80gb' } }).kernel).toBe('flash2');
    const faster = plan('alst-released', { run: { attention: 'flash3' } });
    expect(secondsOf(faster, 'attention forward') / secondsOf(made, 'attention forward')).toBeCloseTo(370 / 648, 6);
  });

  it('pays for what it switches', () => {
    const all = plan('alst-released');
    const kept = plan('alst-released', { released: { checkpoints: 'none' } });
    expect(secondsOf(kept, 'attention forward') / secondsOf(all, 'attention forward')).toBeCloseTo(0.5, 9);
    expect(peak(kept)).toBeGreaterThan(2 * peak(all));
    const onDevice = plan('alst-released', { released: 'checkpoints=device' });
    expect(secondsOf(onDevice, 'checkpoints to the host and back')).toBe(0);
    expect(peak(onDevice, 'host')).toBe(0);
    expect(peak(onDevice) - peak(all)).toBeCloseTo(31 * (2 ** 20 / 8) * 4096 * 2);
    const untiled = plan('alst-released', { released: 'tiledMlp=off' });
    // A fifth product beside four; every tile reads the weights again.
    const dearer = secondsOf(all, 'MLP') / secondsOf(untiled, 'MLP');
    expect([dearer > 5 / 4, dearer < 1.5]).toEqual([true, true]);
    expect(peak(untiled)).toBeGreaterThan(peak(all));
    expect(peak(plan('alst-released', { released: 'tiledLoss=off' }))).toBeGreaterThan(peak(untiled));
    const offloaded = plan('alst-released', { released: { offloadWeights: true } });
    expect(item(offloaded, 'host', 'weight shard')).toBe(item(all, 'hbm', 'weight shard'));
    expect(item(offloaded, 'hbm', 'weight shard')).toBe(0);
  });

  it('reads offload_param of a ds_config as weights on the host', () => {
    const zero = { stage: 3, offload_param: { device: 'cpu' } };
    const made = plan('alst-released', { deepspeed: { ...ZERO_3, zero_optimization: zero } });
    expect(made.options.offloadWeights).toBe(true);
    expect(made.prediction).toEqual(plan('alst-released', { released: 'offloadWeights=on' }).prediction);
  });

  it('has chunks of its own: of the sequence, or of the heads', () => {
    for (const policy of ['fpdt-released', 'upipe'] as const) {
      const [chunked, whole] = [plan(policy), plan(policy, { released: 'chunkedAttention=off' })];
      expect(peak(whole)).toBeGreaterThan(peak(chunked));
    }
    expect(secondsOf(plan('fpdt-released'), 'merging partial outputs')).toBeGreaterThan(0);
    expect(secondsOf(plan('fpdt-released', { run: { seqLen: '64K' } }), 'dq zeroed on the host')).toBe(0);
  });

  it('shares a sequence among as many ranks as it can', () => {
    const cluster = { gpus: 32 };
    const ranks = (policy: PlanOnlyPolicy): number => plan(policy, { cluster }).run.sequenceParallelSize;
    expect([ranks('alst-released'), ranks('fpdt-released'), ranks('upipe')]).toEqual([32, 32, 32]);
    expect(plan('alst-released', { cluster, run: { dataParallelSize: 4 } }).run.sequenceParallelSize).toBe(8);
  });

  it('says what of a request the released program would not take', () => {
    const copied = plan('fpdt-released', { cluster: { gpus: 16 }, run: { sequenceParallelSize: 16 } });
    expect(copied.remarks.join('\n')).toMatch(/no fewer key\/value heads than ranks.*copies of them are assumed/);
    expect(plan('fpdt-released').remarks.join('\n')).not.toMatch(/copies/);
    expect(plan('fpdt-released', { run: { seqLen: 100_000 } }).remarks.join('\n')).toMatch(
      /takes multiples of 65536 tokens; chunks here are 100000/,
    );
    expect(plan('upipe').remarks.join('\n')).toMatch(/FSDP2, not DeepSpeed/);
  });

  it('repeats micro-steps, and not the optimizer', () => {
    const twice = plan('alst-released', { deepspeed: { ...ZERO_3, gradient_accumulation_steps: 2 } });
    const once = plan('alst-released');
    expect(secondsOf(twice, 'MLP')).toBeCloseTo(2 * secondsOf(once, 'MLP'), 9);
    expect(secondsOf(twice, 'optimizer step')).toBe(secondsOf(once, 'optimizer step'));
  });

  it('keeps nothing of the memory free unless asked to', () => {
    const [device] = plan('upipe').memory.pools;
    expect(device?.reserveBytes).toBe(0);
    expect(plan('upipe', { run: { hbmReserve: '10%' } }).memory.pools[0]?.reserveBytes).toBe(Math.ceil(0.1 * (device?.capacityBytes ?? 0)));
  });

  it('says so where it does not fit', () => {
    const made = plan('alst-released', { run: { seqLen: '16M' } });
    expect([made.fits, made.memory.fits]).toEqual([false, false]);
    expect(releasedToText(made)).toMatch(/^Fits {8}no: HBM \d+% full/);
  });
});

const WEIGHTS_ON_DISK = { zero_optimization: { stage: 3, offload_param: { device: 'nvme', nvme_path: '/nvme' } } };

describe('what a released program does not have', () => {
  it.each<[PlanOnlyPolicy, Asked, string, RegExp]>([
    ['upipe', { released: { tiledMPL: true } as ReleasedInput }, 'unknown-key', /unknown key 'tiledMPL'/],
    ['alst-released', { released: 'chunkedAttention=off' }, 'unknown-key', /alst-released has no switch 'chunkedAttention'/],
    ['fpdt-released', { released: 'tiledMlp=off' }, 'unknown-key', /fpdt-released has no switch 'tiledMlp'/],
    ['upipe', { released: 'checkpoints=disk' }, 'invalid-value', /expected "none" or "device" or "host", found "disk"/],
    ['upipe', { released: 'tiledMlp' }, 'invalid-value', /expected name=value/],
    ['upipe', { released: 'tiledMlp=maybe' }, 'invalid-value', /run\.released\.tiledMlp/],
    ['upipe', { run: { numChunks: 4 } }, 'conflict', /run\.numChunks is given, which upipe does not have/],
    ['upipe', { run: { kernels: 'plain' } }, 'conflict', /run\.kernels is given, which upipe does not have/],
    ['alst-released', { run: { lora: { r: 8 } } }, 'conflict', /run\.lora is given/],
    ['alst-released', { run: { attention: 'flash9' } }, 'unknown-kernel', /no rate of an attention kernel 'flash9'/],
    ['fpdt-released', { cluster: { gpus: 6 }, run: { sequenceParallelSize: 6 } }, 'unsupported', /needs a divisor of the query heads/],
    ['alst-released', { cluster: { gpu: 'cpu' } }, 'unsupported', /runs on GPUs/],
    ['alst-released', { deepspeed: WEIGHTS_ON_DISK }, 'unsupported', /offload_param.device: released programs are planned without/],
    ['upipe', { model: { model_type: 'mistral', sliding_window: 4096 } }, 'unsupported', /no sliding window/],
  ])('%s refuses %j', (policy, asked, code, message) => {
    const error = errorOf(() => plan(policy, asked));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
  });

  it('is a run, for all who plan one', async () => {
    const request = { model: LLAMA_8B, cluster: { gpus: 8, gpu: 'h100-80gb' }, run: { seqLen: '1M', policy: 'fpdt-released' } } as const;
    const { seqLen: _, ...open } = request.run;
    const refused = { code: 'plan-only', hint: expect.stringMatching(/^use --policy fpdt, which runs/) as string };
    await expect(planRun(request)).rejects.toMatchObject(refused);
    await expect(maxSeqLen({ ...request, run: open })).rejects.toMatchObject(refused);
    await expect(minGpus({ ...request, cluster: { gpu: 'h100-80gb' } })).rejects.toMatchObject(refused);
    const switched = { ...request, run: { seqLen: '1M', released: 'tiledMlp=off' } } as const;
    await expect(planRun(switched)).rejects.toMatchObject({ code: 'conflict' });
    expect(errorOf(() => planReleased({ ...request, run: { seqLen: '1M', policy: 'fpdt' } })).code).toBe('conflict');
  });
});

describe('the longest sequence of a released program', () => {
  it.each(PLAN_ONLY_POLICIES)('%s fits, and the next does not', (policy) => {
    fc.assert(
      fc.property(fc.integer({ min: 20, max: 120 }), fc.integer({ min: 20, max: 2000 }), (hbm, host) => {
        const cluster = { gpus: 8, gpu: 'h100-80gb', hbmBytes: `${hbm}G`, hostBytes: `${host}G` };
        const longest = attempt(() => maxReleasedSeqLen({ model: LLAMA_8B, cluster, run: { policy }, deepspeed: ZERO_3 }));
        if (longest === undefined) return;
        const fits = (seqLen: number): boolean => plan(policy, { run: { seqLen }, cluster }).fits;
        expect([fits(longest.seqLen), fits(longest.nextSeqLen)]).toEqual([true, false]);
        expect(longest.bound.code).toBe('does-not-fit');
        const printed = JSON.parse(JSON.stringify(longest)) as unknown;
        expect(OUTPUT_SCHEMAS.maxReleasedSeqLen.parse(printed)).toEqual(printed);
      }),
      { numRuns: 8 },
    );
  });

  it('ends at learned positions', () => {
    const model = { model_type: 'gpt2', n_embd: 64, n_layer: 2, n_head: 4, n_positions: 1024, vocab_size: 128, ...NO_DROPOUT };
    const request = { model, cluster: { gpus: 4, gpu: 'h100-80gb' }, run: { policy: 'alst-released' } } as const;
    expect(maxReleasedSeqLen(request)).toMatchObject({ seqLen: 1024, bound: { code: 'too-long' } });
    expect(errorOf(() => planReleased({ ...request, run: { ...request.run, seqLen: 2048 } })).code).toBe('too-long');
  });

  it('takes no length, and says what needs most where none fits', () => {
    const cluster = { gpus: 8, gpu: 'h100-80gb', hbmBytes: '4G' };
    expect(errorOf(() => maxReleasedSeqLen({ model: LLAMA_8B, cluster, run: { policy: 'upipe' } })).code).toBe('does-not-fit');
    const withLength = { model: LLAMA_8B, cluster, run: { policy: 'upipe', seqLen: 1 } } as const;
    expect(errorOf(() => maxReleasedSeqLen(withLength)).code).toBe('unknown-key');
  });
});

/** Undefined where nothing fits. */
function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
