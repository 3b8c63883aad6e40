/**
 * A rank's shares of weights on a disk (ZeRO-Infinity, arXiv 2104.07857; zero/stage3.py and swap_tensor/partitioned_param_swapper.py of
 * DeepSpeed 0.19.8): those that are large enough are written when the model is built, and are read for every gather. What trains is brought
 * back for good, by whole sub-groups, as far as max_in_cpu allows.
 */
import { FpdtError } from '../spec/errors.js';
import type { ParameterTable, ParameterView } from '../spec/types.js';
import { derived, type MemoryItem } from './items.js';
import { shardOf, type Terms } from './stateTerms.js';
import { subGroups, weightsInOrder } from './subGroups.js';

export type WeightFacts = Pick<Terms, 'parameters' | 'classOf' | 'numRanks' | 'w' | 'zero'>;

/** Elements of a rank's shares, and bytes. */
export interface WeightPlaces {
  /** In one block of host memory, and how much of it is taken. */
  readonly blockElements: number;
  readonly inBlockElements: number;
  /** Too small for the disk. */
  readonly looseElements: number;
  /** Read for every gather; of them, written after every update. */
  readonly readElements: number;
  readonly writtenElements: number;
  /**
   * Through which updates are written; 0 where none are. DeepSpeed takes as much as the largest sub-group has on all ranks (`ds_numel` of its
   * weights, where it means that of their shares).
   */
  readonly spareBytes: number;
  /** Of files, which are there of those in the block too. */
  readonly fileBytes: number;
}

interface Known {
  readonly facts: WeightFacts;
  readonly places: WeightPlaces;
}

/** The last request of every parameter table: a prediction asks for every gather. */
const KNOWN = new WeakMap<ParameterTable, Known>();

/** Undefined where weights are elsewhere. */
export function weightPlaces(facts: WeightFacts): WeightPlaces | undefined {
  if (facts.zero.weightsDisk === undefined) return undefined;
  const known = KNOWN.get(facts.parameters);
  if (known !== undefined && isSame(known.facts, facts)) return known.places;
  const places = placesOf(facts, facts.zero.weightsDisk);
  KNOWN.set(facts.parameters, { facts, places });
  return places;
}

/** Of a rank's shares, those that are read for every gather. */
export function readShare(facts: WeightFacts): number {
  const places = weightPlaces(facts);
  if (places === undefined) return 0;
  return places.readElements / (places.readElements + places.inBlockElements + places.looseElements);
}

/** In host memory. */
export function weightsDiskItems(places: WeightPlaces, { device, zero, w }: Pick<Terms, 'device' | 'zero' | 'w'>): readonly MemoryItem[] {
  const pins = device === 'cuda';
  // A pinned block is as large as the next power of two; small weights were one each before, also of what is in the large block now.
  const block = pins && places.blockElements > 0 ? 2 ** Math.ceil(Math.log2(w * places.blockElements)) : w * places.blockElements;
  return [
    bufferItem({ zero, w }),
    derived('weights kept in host memory', block, `${w} B * min(max_in_cpu, parameters that train / ranks)`),
    derived('small weights in host memory', (pins ? 2 : 1) * w * places.looseElements, `${w} B * shares below 1 MiB or aio.block_size`),
    derived('updated weights on their way to the disk', places.spareBytes, `${w} B * parameters of the largest sub-group, of all ranks`),
  ];
}

/** There from the first weight on. */
export function bufferItem({ zero: { weightsDisk }, w }: Pick<Terms, 'zero' | 'w'>): MemoryItem {
  const { numBuffers, bufferElements, alignmentBytes } = weightsDisk ?? NO_BUFFERS;
  const note = `offload_param: buffer_count ${numBuffers} * ${w} B * buffer_size`;
  return derived('buffers of weights', numBuffers * aligned(w * bufferElements, alignmentBytes), note);
}

const NO_BUFFERS = { numBuffers: 0, bufferElements: 0, alignmentBytes: 1 };

/** Whether a weight's share goes to the disk. */
export function goesToDisk(view: ParameterView, { numRanks, w, zero }: Pick<Terms, 'numRanks' | 'w' | 'zero'>): boolean {
  return zero.weightsDisk !== undefined && w * shardOf([view], numRanks) >= zero.weightsDisk.leastBytes;
}

/**
 * Throws an FpdtError for a share that is more than a buffer holds, which DeepSpeed would fail on while the model is built; and for a weight that
 * is both kept whole and on the disk, whose share DeepSpeed drops while it is being gathered.
 */
export function refuseUnreadable(facts: WeightFacts): void {
  const { weightsDisk, persistenceThreshold } = facts.zero;
  if (weightsDisk === undefined) return;
  const large = weightsInOrder(facts)
    .filter((view) => goesToDisk(view, facts))
    .sort((a, b) => a.numel - b.numel);
  const [smallest, largest] = [large.at(0), large.at(-1)];
  if (smallest === undefined || largest === undefined) return;
  const needed = shardOf([largest], facts.numRanks);
  if (needed > weightsDisk.bufferElements) {
    const { bufferElements } = weightsDisk;
    throw refusal('offload_param.buffer_size', `${bufferElements} elements do not hold a rank's ${needed} of '${largest.name}'`, needed);
  }
  if (smallest.numel > persistenceThreshold) return;
  const text = `'${smallest.name}' has ${smallest.numel} elements, so that it would stay whole and go to a disk as well`;
  throw refusal('stage3_param_persistence_threshold', text, smallest.numel - 1);
}

/** `key`: of zero_optimization; `works`: the value that does. */
export function refusal(key: string, text: string, works: number): FpdtError {
  const path = `zero_optimization.${key}`;
  return new FpdtError(`deepspeed.${path}: ${text}`, {
    code: 'invalid-value',
    hint: `${key.split('.').at(-1) ?? key}=${works} works`,
    details: { path, works },
  });
}

function isSame(one: WeightFacts, other: WeightFacts): boolean {
  const [mine, others] = [one.zero.weightsDisk, other.zero.weightsDisk];
  return (
    one.numRanks === other.numRanks &&
    one.w === other.w &&
    one.zero.subGroupElements === other.zero.subGroupElements &&
    JSON.stringify(mine) === JSON.stringify(others)
  );
}

type Disk = NonNullable<Terms['zero']['weightsDisk']>;

function placesOf(facts: WeightFacts, { hostElements, alignmentBytes }: Disk): WeightPlaces {
  const { numRanks, w } = facts;
  const views = weightsInOrder(facts);
  const isLarge = (view: ParameterView): boolean => goesToDisk(view, facts);
  const alignedBytes = (some: readonly ParameterView[], elements: (view: ParameterView) => number): number =>
    some.reduce((total, view) => total + aligned(w * elements(view), alignmentBytes), 0);
  const groups = subGroups(facts);
  const sizes = groups.map((group) => shardOf(group, numRanks));
  const owned = sizes.reduce((total, size) => total + size, 0);
  const blockElements = Math.min(owned, hostElements);
  let end = 0;
  const fits = sizes.map((size) => {
    end += size;
    return end <= blockElements;
  });
  const away = groups.filter((_, i) => fits[i] === false);
  const largest = groups[sizes.indexOf(Math.max(...sizes))] ?? [];
  const written = shardOf(away.flat().filter(isLarge), numRanks);
  const small = views.filter((view) => !isLarge(view));
  const frozen = views.filter((view) => !view.trainable && isLarge(view));
  return {
    blockElements,
    inBlockElements: sizes.reduce((total, size, i) => total + (fits[i] === true ? size : 0), 0),
    looseElements: shardOf(small, numRanks),
    readElements: written + shardOf(frozen, numRanks),
    writtenElements: written,
    spareBytes: away.length === 0 ? 0 : alignedBytes(largest, ({ numel }) => numel),
    fileBytes: alignedBytes(views.filter(isLarge), (view) => shardOf([view], numRanks)),
  };
}

function aligned(bytes: number, alignmentBytes: number): number {
  return Math.ceil(bytes / alignmentBytes) * alignmentBytes;
}
