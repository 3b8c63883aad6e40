/** What a run asks of the kernels beside attention: of each kind a name, or `plain`, the twin that the others are held against. */
import * as z from 'zod';
import { FpdtError } from './errors.js';
import { nearestKey } from './nearestKey.js';
import { isObject, parseWith, unknownKey } from './parseJson.js';
import { textPairs } from './textPairs.js';

export const PLAIN = 'plain';
const AUTO = 'auto';

/** By kind, in the order in which plans list them. catalog/fusedKernels.ts says which plans take by themselves. */
export const KERNEL_NAMES = {
  /** `inplace`: logits become their gradients, block by block in fp32. */
  loss: ['inplace'],
  /** `lerp`: one pass over an output for each partial one. */
  merge: ['lerp'],
  /** `vectornorm`: an rms norm that writes no squares down. */
  norm: ['vectornorm'],
  /** `addcmul`: a product and its sum with another in one pass, rounded once. */
  rope: ['addcmul'],
  /** `inplace`: a result takes the memory of a value that nothing after it reads. */
  elementwise: ['inplace'],
  /**
   * `blocks`: a product of a half dtype is added to its fp32 region block by block. `addmm`: cuBLAS adds it there itself, in fp32, rounded
   * nowhere else (torch.addmm with `out_dtype`, PyTorch 2.11); only where it is asked for, until a GPU has shown that it is faster.
   */
  weightGradient: ['blocks', 'addmm'],
} as const;

/** By kind; one that is left out is plain. */
export type NamedKernels = { readonly [K in keyof typeof KERNEL_NAMES]?: (typeof KERNEL_NAMES)[K][number] };

const asked = z.exactOptional;

export const kernelChoicesSchema = z.strictObject({
  loss: asked(z.enum([...KERNEL_NAMES.loss, PLAIN])),
  merge: asked(z.enum([...KERNEL_NAMES.merge, PLAIN])),
  norm: asked(z.enum([...KERNEL_NAMES.norm, PLAIN])),
  rope: asked(z.enum([...KERNEL_NAMES.rope, PLAIN])),
  elementwise: asked(z.enum([...KERNEL_NAMES.elementwise, PLAIN])),
  weightGradient: asked(z.enum([...KERNEL_NAMES.weightGradient, PLAIN])),
});

/** A kind that is left out has the kernel that the planner takes. */
export type KernelChoices = Readonly<z.infer<typeof kernelChoicesSchema>>;

const WHAT = 'run.kernels';
const EXAMPLE = 'norm=plain,merge=plain';
const KINDS = Object.keys(KERNEL_NAMES) as readonly (keyof typeof KERNEL_NAMES)[];
const ALL_PLAIN = parseWith(kernelChoicesSchema, Object.fromEntries(KINDS.map((kind) => [kind, PLAIN])), WHAT);

/** Choices as an object, or as text: `auto`, which are none, `plain`, which are all, or `norm=plain,merge=plain`. */
export function parseKernels(input: string | KernelChoices): KernelChoices | undefined {
  const choices = isObject(input) ? parseWith(kernelChoicesSchema, input, WHAT) : fromText(input.trim());
  return choices === undefined || Object.keys(choices).length === 0 ? undefined : choices;
}

function fromText(text: string): KernelChoices | undefined {
  if (text === AUTO) return undefined;
  if (text === PLAIN) return ALL_PLAIN;
  if (!text.includes('=')) throw unknownWord(text);
  const pairs = textPairs(text, WHAT, EXAMPLE);
  for (const [kind, name] of pairs) checkName(kind, name);
  return parseWith(kernelChoicesSchema, Object.fromEntries(pairs), WHAT);
}

function checkName(kind: string, name: string): void {
  const known = KINDS.find((one) => one === kind);
  if (known === undefined) throw unknownKey(kind, KINDS, WHAT);
  const names: readonly string[] = [...KERNEL_NAMES[known], PLAIN];
  if (names.includes(name)) return;
  throw new FpdtError(`${WHAT}.${kind}: expected ${names.join(' or ')}, found ${JSON.stringify(name)}`, {
    code: 'invalid-value',
    hint: hintFor(name, names),
  });
}

function unknownWord(text: string): FpdtError {
  return new FpdtError(`${WHAT}: expected ${AUTO}, ${PLAIN}, or kind=kernel with commas between, found ${JSON.stringify(text)}`, {
    code: 'invalid-value',
    hint: hintFor(text, [AUTO, PLAIN]),
  });
}

function hintFor(given: string, known: readonly string[]): string {
  const nearest = nearestKey(given, known);
  return nearest === undefined ? `write ${known.join(', ')}, or choices such as ${EXAMPLE}` : `did you mean '${nearest}'?`;
}
