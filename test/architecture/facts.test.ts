/** Facts that stand in one place of each language: held by reading the sources, and by asking Python for its tables. */
import { KERNEL_NAMES } from '../../src/spec/kernelChoices.js';
import { INSTRUCTION_NAMES } from '../../src/spec/modelCode.js';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { runOptionsSchema } from '../../src/bridge/runOptions.js';
import { PYTHON_FOLDER, resolvePython } from '../../src/bridge/python.js';
import { ATTENTION_KERNELS } from '../../src/catalog/kernels.js';
import { OP_ROWS, type OpRow } from '../../src/catalog/ops/index.js';
import { PLAN_VERSION } from '../../src/plan/executionPlan.js';
import { DTYPE_BYTES } from '../../src/spec/dtype.js';
import { FILE_ALIGNMENT_BYTES } from '../../src/spec/pools.js';

interface Fact {
  readonly fact: string;
  readonly language: 'TypeScript' | 'Python';
  /** How the fact looks where it is written down. */
  readonly pattern: RegExp;
  /** Files that may hold it, each with its reason. */
  readonly where: Readonly<Record<string, string>>;
}

const FACTS: readonly Fact[] = [
  {
    fact: 'names of pools',
    language: 'TypeScript',
    pattern: /(['"`])(?:hbm|host|disk)\1/,
    where: { 'catalog/pools.ts': 'the table of pools', 'spec/releasedPrograms.ts': 'no pool: a word of options of released programs' },
  },
  {
    fact: 'names of pools',
    language: 'Python',
    pattern: /"(?:hbm|host|disk)"/,
    where: {},
  },
  {
    fact: 'the streams of copies',
    language: 'TypeScript',
    pattern: /'(?:h2d|d2h)'/,
    where: { 'catalog/pools.ts': 'the table of links' },
  },
  {
    fact: 'how heads are shared out',
    language: 'TypeScript',
    pattern: /\b(?:numHeads|numKvHeads|heads)\s*[/%]\s|[/%]\s*(?:numHeads|numKvHeads)\b/,
    where: {
      'spec/parallelLayout.ts': 'the head map',
      'spec/parallelism.ts': 'sizes that need no copies of heads',
    },
  },
  {
    fact: 'how many heads a rank has',
    language: 'TypeScript',
    pattern: /\bheads\.(?:query|keyValue)\[0\]/,
    where: { 'spec/parallelLayout.ts': 'ownHeads and ownKvHeads' },
  },
  {
    fact: 'bytes of a dtype',
    language: 'TypeScript',
    pattern: /\b(?:float64|float32|bfloat16|float16|int64)\b'?\)?\s*[:?]\s*[248]\b/,
    where: { 'spec/dtype.ts': 'the table of dtypes' },
  },
  {
    fact: 'bytes of a dtype',
    language: 'Python',
    pattern: /\b(?:float64|float32|bfloat16|float16|int64)"?\s*:\s*[248]\b/,
    where: { 'plan/nouns.py': 'its twin' },
  },
  {
    fact: 'copy modes',
    language: 'TypeScript',
    pattern: /'eager'[^;]{0,40}'lazy'/,
    where: { 'bridge/runOptions.ts': 'the message that carries one' },
  },
  {
    fact: 'copy modes',
    language: 'Python',
    pattern: /"eager"[^\n]*"lazy"/,
    where: {
      'devices/cpu.py': 'those that are its orders',
      'wire/options.py': 'the message that carries one, which loads nothing heavy',
    },
  },
  {
    fact: 'what is an object of JSON',
    language: 'TypeScript',
    pattern: /=== 'object' && [\w.]+ !== null && !Array\.isArray|!== 'object' \|\| [\w.]+ === null \|\| Array\.isArray/,
    where: { 'spec/parseJson.ts': 'isObject' },
  },
  {
    fact: 'policies',
    language: 'TypeScript',
    pattern: /'ulysses'[^;]{0,60}'fpdt'/,
    where: { 'spec/strategy.ts': 'the list of policies' },
  },
  {
    fact: 'the order of backward loops',
    language: 'TypeScript',
    pattern: /'queryOuterDescending'[^;]{0,20}'keyValueOuterAscending'/,
    where: { 'spec/strategy.ts': 'the list of orders' },
  },
];

const TYPESCRIPT = readSources(fileURLToPath(new URL('../../src/', import.meta.url)), '.ts', /\/\*.*?\*\/|\/\/[^\n]*/gs);
const PYTHON = readSources(join(PYTHON_FOLDER, 'fpdt'), '.py', /"""(?:.|\n)*?"""|#[^\n]*/g);

/** Texts by path, without comments. */
function readSources(folder: string, ending: string, comment: RegExp): ReadonlyMap<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith(ending));
  return new Map(names.sort().map((name) => [name, readFileSync(join(folder, name), 'utf8').replace(comment, '')]));
}

describe('in one place', () => {
  it.each(FACTS)('$fact in $language', ({ language, pattern, where }) => {
    const sources = language === 'TypeScript' ? TYPESCRIPT : PYTHON;
    const lines = new Map([...sources].map(([file, text]) => [file, text.match(pattern)?.[0]]));
    const elsewhere = [...lines].filter(([file, line]) => line !== undefined && !Object.hasOwn(where, file));
    expect(elsewhere, `stated outside of ${Object.keys(where).join(', ') || 'data'}`).toEqual([]);
    expect(
      Object.keys(where).filter((file) => lines.get(file) === undefined),
      'exceptions that are none any more',
    ).toEqual([]);
  });
});

/** What Python's tables say, as JSON. */
const ASK = `
import json
from typing import get_args
from fpdt.attention.register import BACKENDS, CAPABILITIES
from fpdt.devices import DEVICE_MODES
from fpdt.models.fused import FUSED_KERNELS
from fpdt.models.primitives import PRIMITIVES
from fpdt.plan.header import PLAN_VERSION
from fpdt.plan.model_code import InstructionName
from fpdt.plan.nouns import DTYPE_BYTES, FILE_ALIGNMENT_BYTES
from fpdt.plan.op_kinds import OP_KINDS
from fpdt.wire.options import CopyMode
print(json.dumps({
    "kinds": {kind.name: [kind.stream, *kind.groups, kind.is_paired, kind.external] for kind in OP_KINDS.values()},
    "masks": {name: sorted(masks) for name, masks in CAPABILITIES.items()},
    "softcaps": {name: make().softcap for name, make in BACKENDS.items()},
    "fused": FUSED_KERNELS,
    "instructions": [sorted(get_args(InstructionName)), sorted(PRIMITIVES)],
    "copyModes": [get_args(CopyMode), [mode for modes in DEVICE_MODES.values() for mode in modes]],
    "dtypeBytes": DTYPE_BYTES,
    "fileAlignmentBytes": FILE_ALIGNMENT_BYTES,
    "planVersion": PLAN_VERSION,
}))
`;

interface PythonTables {
  readonly kinds: Readonly<Record<string, unknown>>;
  readonly masks: Readonly<Record<string, readonly string[]>>;
  readonly softcaps: Readonly<Record<string, boolean>>;
  readonly fused: Readonly<Record<string, string>>;
  readonly instructions: readonly (readonly string[])[];
  readonly copyModes: readonly (readonly string[])[];
  readonly dtypeBytes: Readonly<Record<string, number>>;
  readonly fileAlignmentBytes: number;
  readonly planVersion: number;
}

describe('the same in both languages', () => {
  let python: PythonTables;

  beforeAll(async () => {
    const env = { ...process.env, PYTHONPATH: PYTHON_FOLDER, OMP_NUM_THREADS: '1' };
    const { stdout } = await promisify(execFile)(resolvePython(), ['-c', ASK], { env });
    python = JSON.parse(stdout) as PythonTables;
  });

  it('op kinds: streams, views by name, who runs them', () => {
    const row = ({ stream, reads, writes, accumulates, pairs, external }: OpRow) => [stream, reads, writes, accumulates, pairs, external];
    expect(python.kinds).toEqual(Object.fromEntries(Object.entries(OP_ROWS).map(([kind, of]) => [kind, row(of)])));
  });

  it('attention kernels and the masks that each has', () => {
    const masks = ATTENTION_KERNELS.map(({ name, rectangle, window }) => [
      name,
      ['full', ...(rectangle ? ['rectangle'] : []), 'square', ...(window ? ['window'] : [])],
    ]);
    expect(python.masks).toEqual(Object.fromEntries(masks));
    expect(python.softcaps).toEqual(Object.fromEntries(ATTENTION_KERNELS.map(({ name, softcap }) => [name, softcap])));
  });

  it('kernels beside attention', () => {
    const { weightGradient, ...others } = KERNEL_NAMES;
    expect(python.fused).toEqual({ ...others, weight_gradient: weightGradient });
  });

  it('instructions of models', () => {
    expect(python.instructions).toEqual([[...INSTRUCTION_NAMES].sort(), [...INSTRUCTION_NAMES].sort()]);
  });

  it('copy modes', () => {
    const { options } = runOptionsSchema.shape.copyMode.unwrap();
    expect(python.copyModes).toEqual([options, options]);
  });

  it('bytes of dtypes, alignment in files, version of plans', () => {
    expect(python.dtypeBytes).toEqual(DTYPE_BYTES);
    expect([python.fileAlignmentBytes, python.planVersion]).toEqual([FILE_ALIGNMENT_BYTES, PLAN_VERSION]);
  });
});
