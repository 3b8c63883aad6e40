/**
 * `npm run bench:packing -- [--json] [--seq-len 4096] [--steps 3] [--seed 1]`: what packed documents cost beside one document as long as all of
 * them, on two ranks of this machine's CPU: 8 documents of an eighth of the sequence each, and of an eighth +- 20%, in 4 and in 16 chunks.
 * FLOPs of attention are counted from what its kernels were asked for. Fails where they are more than 1.05 times, of documents that are not
 * aligned with chunks 1.25 times, those of the documents one by one.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Harness } from '../scripts/parity/harness.js';
import { parseOptions, runScript, wholeNumber } from '../scripts/options.js';
import { mulberry32 } from '../src/address/layout.js';
import { type ExecutionPlan, planRun, writePlanFile } from '../src/index.js';
import { ownHeads } from '../src/spec/parallelLayout.js';

const NUM_DOCUMENTS = 8;
const DEVIATION = 0.2;
const NUM_CHUNKS = [4, 16];
const MOST_FLOPS = { aligned: 1.05, unaligned: 1.25 } as const;
const NUM_RANKS = 2;
/** Attention is most of the work, as it is of long sequences. */
const MODEL = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 256,
  intermediate_size: 256,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 64,
  vocab_size: 256,
  max_position_embeddings: 1 << 20,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  attention_bias: false,
  mlp_bias: false,
  tie_word_embeddings: false,
};
const DEEPSPEED = {
  train_micro_batch_size_per_gpu: 1,
  zero_optimization: { stage: 3 },
  optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } },
};
/** Keys and values, and their gradients, on the host: copies are left out too. */
const STRATEGY = {
  layers: [
    {
      layers: [0, 2],
      keyValues: 'host',
      keyValueGradients: 'host',
      attentionOutput: 'host',
      checkpoints: 'host',
      backwardOrder: 'queryOuterDescending',
    },
  ],
};

interface Measured {
  /** Of rank 0 and one step. */
  readonly attentionFlops: number;
  readonly copiedBytes: number;
  readonly stepSeconds: number;
}

interface Row {
  readonly numChunks: number;
  readonly documents: keyof typeof MOST_FLOPS;
  readonly lengths: readonly number[];
  readonly packed: Measured;
  /** One document of all tokens. */
  readonly whole: Measured;
  /** Of attention to each document alone. */
  readonly documentFlops: number;
  readonly flopsOverDocuments: number;
  readonly atMost: number;
  readonly stepTimeOverWhole: number;
}

interface Setting {
  readonly seqLen: number;
  readonly numSteps: number;
  readonly seed: number;
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      'seq-len': { type: 'string', default: '4096' },
      steps: { type: 'string', default: '3' },
      seed: { type: 'string', default: '1' },
    },
  });
  const setting = {
    seqLen: roundTo(wholeNumber('seq-len', values['seq-len'], { least: 256 }), NUM_DOCUMENTS * 16),
    numSteps: wholeNumber('steps', values.steps, { least: 2 }),
    seed: wholeNumber('seed', values.seed),
  };
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-packing-'));
  const harness = Harness.start();
  const rows: Row[] = [];
  try {
    const bench = new Bench(harness, folder, setting);
    for (const numChunks of NUM_CHUNKS) rows.push(...(await bench.rows(numChunks)));
  } finally {
    await harness.stop();
    await rm(folder, { recursive: true, force: true });
  }
  const ok = rows.every(({ flopsOverDocuments, atMost }) => flopsOverDocuments <= atMost);
  const report = { kind: 'packingBench', ok, ...setting, numRanks: NUM_RANKS, rows };
  process.stdout.write(values.json ? `${JSON.stringify(report, null, 1)}\n` : `${rows.map(rowText).join('\n')}\n`);
  process.exitCode = ok ? 0 : 1;
}

class Bench {
  private readonly harness: Harness;
  private readonly folder: string;
  private readonly setting: Setting;

  constructor(harness: Harness, folder: string, setting: Setting) {
    this.harness = harness;
    this.folder = folder;
    this.setting = setting;
  }

  async rows(numChunks: number): Promise<readonly Row[]> {
    const { seqLen, seed } = this.setting;
    const plan = await planRun({
      model: MODEL,
      cluster: { gpus: NUM_RANKS, gpu: 'cpu' },
      deepspeed: DEEPSPEED,
      run: { seqLen, numChunks, strategy: STRATEGY, dtype: 'float32', packing: true },
    });
    const path = join(this.folder, `plan-${numChunks}.json`);
    await writePlanFile(plan, path);
    const whole = await this.measure(plan, path, [seqLen]);
    const even = Array.from({ length: NUM_DOCUMENTS }, () => seqLen / NUM_DOCUMENTS);
    const kinds = { aligned: even, unaligned: unevenLengths(seqLen, seed) };
    const rows: Row[] = [];
    for (const [documents, lengths] of Object.entries(kinds) as [keyof typeof kinds, readonly number[]][]) {
      const packed = await this.measure(plan, path, lengths);
      const share = lengths.reduce((sum, length) => sum + pairs(length), 0) / pairs(seqLen);
      const documentFlops = whole.attentionFlops * share;
      rows.push({
        numChunks,
        documents,
        lengths,
        packed,
        whole,
        documentFlops,
        flopsOverDocuments: packed.attentionFlops / documentFlops,
        atMost: MOST_FLOPS[documents],
        stepTimeOverWhole: packed.stepSeconds / whole.stepSeconds,
      });
    }
    return rows;
  }

  private async measure(plan: ExecutionPlan, path: string, lengths: readonly number[]): Promise<Measured> {
    const { seqLen, numSteps, seed } = this.setting;
    const data = join(this.folder, 'tokens.txt');
    await writeFile(
      data,
      Uint8Array.from({ length: numSteps * (seqLen + 1) }, (_, i) => (i * i * 7) % 251),
    );
    const { steps = [], pairs: counted = {} } = await this.harness.mustRun({
      kind: 'worker',
      plan: path,
      data,
      steps: numSteps,
      worldSize: NUM_RANKS,
      documents: seed,
      lengths,
      options: { poison: false },
    });
    // The first step tunes and allocates.
    const seconds = steps.slice(1).map((step) => step.seconds);
    return {
      attentionFlops: attentionFlops(plan, counted) / numSteps,
      copiedBytes: Object.values(steps.at(-1)?.copied_bytes ?? {}).reduce((sum, bytes) => sum + bytes, 0),
      stepSeconds: seconds.toSorted((a, b) => a - b)[Math.floor(seconds.length / 2)] ?? Number.NaN,
    };
  }
}

/** Forward 4 for each pair, head and element, backward 2.5 times that: as in the catalog of ops. */
function attentionFlops({ model, layout }: ExecutionPlan, counted: Readonly<Record<string, number>>): number {
  const { attn = 0, attnBwd = 0 } = counted;
  return 4 * (attn + 2.5 * attnBwd) * ownHeads(layout) * model.headDim;
}

/** Of a query and a key of one document. */
function pairs(length: number): number {
  return (length * (length + 1)) / 2;
}

/** An eighth, more or less: what one document is longer another is shorter. */
function unevenLengths(seqLen: number, seed: number): readonly number[] {
  const random = mulberry32(seed);
  const mean = seqLen / NUM_DOCUMENTS;
  const changes = Array.from({ length: NUM_DOCUMENTS / 2 }, () => Math.max(1, Math.floor(random() * DEVIATION * mean)));
  return [...changes.map((change) => mean + change), ...changes.toReversed().map((change) => mean - change)];
}

function roundTo(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

function rowText({ numChunks, documents, packed, whole, flopsOverDocuments, atMost, stepTimeOverWhole }: Row): string {
  const flops = `${flopsOverDocuments.toFixed(3)} times the attention of the documents (at most ${atMost})`;
  const times = `${packed.stepSeconds.toFixed(2)} s a step, ${stepTimeOverWhole.toFixed(2)} of one document's ${whole.stepSeconds.toFixed(2)} s`;
  const copies = `${(packed.copiedBytes / whole.copiedBytes).toFixed(2)} of its copies`;
  return `${numChunks} chunks, ${documents}: ${flops}; ${times}; ${copies}`;
}

await runScript(main);
