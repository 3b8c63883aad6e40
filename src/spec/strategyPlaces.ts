/** Which kinds of pools may hold which tensor, and what a backward order asks of them. */
import { FpdtError } from './errors.js';
import { nearestKey } from './nearestKey.js';
import type { NamedPool, PoolKind } from './pools.js';
import { keptWidth } from './modelCode.js';
import { type BackwardOrder, RECOMPUTE } from './strategy.js';
import type { ModelSpec } from './types.js';

/** What is read once, a whole forward after it was written, may go to a file; the others are touched for every chunk of a layer. */
const HOLDERS = {
  hiddenGradients: ['device', 'pinned'],
  keyValues: ['device', 'pinned'],
  keyValueGradients: ['device', 'pinned'],
  attentionOutput: ['device', 'pinned', 'file'],
  rebuiltOutput: ['device', 'pinned', 'file'],
  internals: ['device', 'pinned', 'file'],
  checkpoints: ['device', 'pinned', 'file'],
} satisfies Readonly<Record<string, readonly PoolKind[]>>;

type PlacedTensor = keyof typeof HOLDERS;

const LAYER_TENSORS = [
  'keyValues',
  'keyValueGradients',
  'attentionOutput',
  'rebuiltOutput',
  'internals',
  'checkpoints',
] satisfies PlacedTensor[];
/** What can be formed again. */
const RECOMPUTED: readonly PlacedTensor[] = ['attentionOutput', 'rebuiltOutput', 'internals'];

type Places = { readonly [tensor in PlacedTensor]?: string | undefined };

/** Places that a policy or solver may choose for a tensor: names of pools, and RECOMPUTE where it need not be kept. */
export function placesOf(tensor: PlacedTensor, pools: readonly NamedPool[]): readonly string[] {
  const holders: readonly PoolKind[] = HOLDERS[tensor];
  const names = pools.filter(({ kind }) => holders.includes(kind)).map(({ name }) => name);
  return RECOMPUTED.includes(tensor) ? [...names, RECOMPUTE] : names;
}

/** Throws `bad-place` for a place that is no pool, or of a kind that cannot hold the tensor. */
export function checkPlaces(
  strategy: { readonly hiddenGradients?: string | undefined; readonly layers?: readonly Places[] | undefined },
  pools: readonly NamedPool[],
): void {
  checkPlace('hiddenGradients', strategy, 'strategy', pools);
  for (const [i, range] of (strategy.layers ?? []).entries()) {
    for (const tensor of LAYER_TENSORS) checkPlace(tensor, range, `strategy.layers.${i}`, pools);
  }
}

function checkPlace(tensor: PlacedTensor, places: Places, at: string, pools: readonly NamedPool[]): void {
  const place = places[tensor];
  if (place === undefined) return;
  const allowed = placesOf(tensor, pools);
  if (allowed.includes(place)) return;
  const kind = pools.find(({ name }) => name === place)?.kind;
  const nearest = kind === undefined ? nearestKey(place, allowed) : undefined;
  throw new FpdtError(
    `${at}.${tensor}: ${kind === undefined ? `this cluster has no place '${place}'` : `'${place}' is a ${kind} pool and cannot hold it`}`,
    {
      code: 'bad-place',
      hint: nearest === undefined ? placesHint(tensor, allowed, pools) : `did you mean '${nearest}'?`,
      details: { path: `${at}.${tensor}`, allowed },
    },
  );
}

function placesHint(tensor: PlacedTensor, allowed: readonly string[], pools: readonly NamedPool[]): string {
  const holders: readonly PoolKind[] = HOLDERS[tensor];
  const wantsFile = holders.includes('file') && pools.every(({ kind }) => kind !== 'file');
  return `places that work: ${allowed.join(', ')}${wantsFile ? '; a file, where the cluster has diskBytes' : ''}`;
}

/** Throws `unsupported` where products are to be kept of a model whose reverse forms none again. */
export function checkInternals({ internals = RECOMPUTE }: Places, at: string, { code }: Pick<ModelSpec, 'code'>): void {
  if (internals === RECOMPUTE || keptWidth(code) > 0) return;
  throw new FpdtError(`${at}.internals: backward of this model forms no product again, so there is none to keep`, {
    code: 'unsupported',
    hint: `leave it out, or set it to ${RECOMPUTE}`,
    details: { path: `${at}.internals` },
  });
}

interface OrderedRange {
  readonly layers: readonly [start: number, end: number];
  readonly backwardOrder?: BackwardOrder | undefined;
  readonly keyValueGradients?: string | undefined;
}

/**
 * Key/value-outer backward finishes dk, dv of a chunk in one inner loop over all later queries: their accumulators are one chunk on
 * the device, and a window, which the loop does not know, would leave most of it without work.
 */
export function checkBackwardOrder(range: OrderedRange, at: string, { windows }: ModelSpec, pools: readonly NamedPool[]): void {
  if (range.backwardOrder !== 'keyValueOuterAscending') return;
  const { keyValueGradients } = range;
  if (keyValueGradients !== undefined && pools.find(({ name }) => name === keyValueGradients)?.kind !== 'device') {
    const devices = pools.filter(({ kind }) => kind === 'device').map(({ name }) => name);
    throw badOrder(
      at,
      `keeps key/value gradients on the device, not in '${keyValueGradients}'`,
      `set keyValueGradients to ${devices.join(' or ')}, or`,
    );
  }
  const [start, end] = range.layers;
  const windowed = windows.findIndex((window, layer) => window !== null && layer >= start && layer < end);
  if (windowed === -1) return;
  throw badOrder(
    at,
    `needs attention without a window; layer ${windowed} sees ${windows[windowed]} tokens`,
    'leave those layers out of the range, or',
  );
}

function badOrder(at: string, text: string, remedy: string): FpdtError {
  return new FpdtError(`${at}.backwardOrder: keyValueOuterAscending ${text}`, {
    code: 'bad-order',
    hint: `${remedy} use queryOuterDescending`,
    details: { path: `${at}.backwardOrder` },
  });
}
