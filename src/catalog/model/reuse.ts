/**
 * Whose memory a result may take: that of a value which the same instruction frees, and which nobody else holds. `reuse0` and `reuse1` of an
 * instruction say which of its reads that is for each of its results; the kernel `inplace` of element-wise instructions does so.
 */
import type { Instruction, InstructionName } from '../../spec/modelCode.js';

/** With what each instruction frees. */
export function withReuse(instructions: readonly Instruction[], widths: Readonly<Record<string, number>>): readonly Instruction[] {
  const makers = new Map(instructions.flatMap(({ op, writes }) => writes.map((name) => [name, op] as const)));
  return instructions.map((one) => {
    const places = reusable(one, (name) => isFree(name, one, makers, widths));
    return places.length === 0 ? one : { ...one, attributes: { ...one.attributes, ...Object.fromEntries(places.map(named)) } };
  });
}

/** Names of the values whose memory the results take, one for each; none where they have memory of their own. */
export function takenBy({ reads, writes, attributes }: Instruction): readonly string[] {
  return writes.flatMap((_, i) => {
    const place = attributes[`reuse${i}`];
    return typeof place === 'number' ? [reads[place] ?? ''] : [];
  });
}

/** Those whose inputs and result are alike, element by element. */
const ALIKE: ReadonlySet<InstructionName> = new Set(['activation', 'multiply', 'add', 'scale']);

function reusable({ op, reads, attributes }: Instruction, isFree: (name: string | undefined) => boolean): readonly number[] {
  const [upstream, first, second] = reads;
  if (ALIKE.has(op)) {
    const place = reads.findIndex(isFree);
    return place === -1 ? [] : [place];
  }
  // The reverse of a squared relu makes a value beside its result.
  if (op === 'activationBwd') return attributes.kind !== 'relu2' && isFree(upstream) ? [0] : [];
  if (op !== 'multiplyBwd' || !isFree(upstream) || first === second) return [];
  if (attributes.skip0 === true || attributes.skip1 === true) return [0];
  return isFree(first) ? [0, 1] : [];
}

/** Made here, of the result's width, and freed; what was loaded, or cast to the dtype that it had, is a view of another. */
function isFree(
  name: string | undefined,
  { frees, writes: [result = ''] }: Instruction,
  makers: ReadonlyMap<string, InstructionName>,
  widths: Readonly<Record<string, number>>,
): boolean {
  if (name === undefined || !frees.includes(name)) return false;
  const maker = makers.get(name);
  return maker !== undefined && maker !== 'load' && maker !== 'cast' && widths[name] === widths[result];
}

function named(place: number, i: number): readonly [string, number] {
  return [`reuse${i}`, place];
}
