/** Rates of kernels from what instructions and ops took: work of all runs of one shape over their seconds. */
import { isCodeName, opSizes, OP_ROWS, type OpSizes, opWork } from '../../catalog/ops/index.js';
import type { KernelRate, Rates } from '../../spec/types.js';
import { opRows, workOfKernel } from '../kernelSeconds.js';
import { type Probe, sumOf, timedOps, timedUnder } from './probe.js';

interface Sample {
  readonly kernel: string;
  readonly rows: number;
  readonly work: number;
  readonly count: number;
  readonly seconds: number;
}

export function kernelRates(probes: readonly Probe[]): readonly KernelRate[] {
  const shapes = new Map<string, { rate: Omit<KernelRate, 'workPerSecond'>; work: number; seconds: number }>();
  for (const { kernel, rows, work, count, seconds } of probes.flatMap(samples)) {
    if (work === 0 || seconds === 0 || rows === 0) continue;
    const workPerRow = work / rows;
    const key = `${kernel} ${rows} ${workPerRow.toPrecision(6)}`;
    const shape = shapes.get(key) ?? { rate: { kernel, rows, workPerRow }, work: 0, seconds: 0 };
    shapes.set(key, { ...shape, work: shape.work + count * work, seconds: shape.seconds + seconds });
  }
  return [...shapes.values()].map(({ rate, work, seconds }) => ({ ...rate, workPerSecond: work / seconds }));
}

/** What products and element-wise kernels that were not measured run at: what those of the most rows reach together. */
export function meanRates(probes: readonly Probe[]): Pick<Rates, 'matmulFlops' | 'memoryBytes'> {
  const all = probes.flatMap(codeSamples);
  const most = Math.max(...all.map(({ rows }) => rows));
  const rate = (isProduct: boolean): number => {
    const chosen = all.filter(({ kernel, rows, work }) => rows === most && work > 0 && kernel.startsWith('linear') === isProduct);
    return sumOf(chosen, ({ work, count }) => work * count) / sumOf(chosen, ({ seconds }) => seconds);
  };
  return { matmulFlops: rate(true), memoryBytes: rate(false) };
}

function samples(probe: Probe): readonly Sample[] {
  return [...codeSamples(probe), ...opSamples(probe)];
}

function codeSamples(probe: Probe): readonly Sample[] {
  const sizes = sizesOf(probe);
  return timedUnder(probe, 'code').map(({ parts: [name = '', number, instruction, rowsText], timed: { count, seconds } }) => {
    if (!isCodeName(name)) throw new RangeError(`code '${name}' was measured, which no op runs`);
    const code = sizes.code.codes(name)[Number(number)]?.code;
    const one = code?.instructions[Number(instruction)];
    if (code === undefined || one === undefined) throw new RangeError(`instruction ${instruction} of ${name} is not in the plan`);
    const rows = Number(rowsText);
    return { kernel: one.op, rows, work: workOfKernel(sizes.code.instructionWork(one, code, rows)), count, seconds };
  });
}

/** Of kinds that do no more than their kernels: what an exchange, a copy or attention takes is not theirs alone. */
function opSamples(probe: Probe): readonly Sample[] {
  const sizes = sizesOf(probe);
  const { attributes, buffers } = probe.plan;
  return timedOps(probe)
    .filter(({ op: { kind } }) => !isCodeName(kind) && !APART.has(kind) && OP_ROWS[kind].stream === 'compute')
    .map(({ op, timed: { count, seconds } }) => {
      const attribute = op.attribute === undefined ? undefined : attributes[op.attribute];
      const work = workOfKernel(opWork(op, attribute, buffers, sizes));
      const { rows, tiles } = opRows(op, attribute);
      return { kernel: op.kind, rows, work: work / tiles, count: count * tiles, seconds };
    });
}

const APART: ReadonlySet<string> = new Set(['attn', 'attnBwd', 'loadBatch']);

export function sizesOf({ plan }: Probe): OpSizes {
  return opSizes({ ...plan, device: plan.cluster.device });
}
