/** What a strategy decides for all layers at once: where the tensors of one layer at work live, and the order of backward. */
import type { BackwardOrder, Strategy } from '../../spec/strategy.js';
import { hasWindows, type Setting } from '../setting.js';

export interface Frame {
  readonly keyValues: string;
  readonly keyValueGradients: string;
  readonly hiddenGradients: string;
  readonly backwardOrder: BackwardOrder;
  readonly kvTileChunks: number;
}

/** Those that copy least first. What the user fixed is fixed in all of them. */
export function frames({ run, pools, places, model }: Setting): readonly Frame[] {
  const { device } = places;
  const pinned = pools.find(({ kind }) => kind === 'pinned')?.name ?? device;
  const { kvTileChunks = 1, headGroups = 1, strategy } = run;
  const frame = (keyValues: string, keyValueGradients: string, hiddenGradients: string, backwardOrder: BackwardOrder): Frame => ({
    keyValues,
    keyValueGradients,
    hiddenGradients,
    backwardOrder,
    kvTileChunks,
  });
  const all = [
    frame(device, device, device, 'queryOuterDescending'),
    frame(device, device, pinned, 'queryOuterDescending'),
    frame(device, pinned, device, 'queryOuterDescending'),
    frame(device, pinned, pinned, 'queryOuterDescending'),
    frame(pinned, device, device, 'queryOuterDescending'),
    frame(pinned, device, pinned, 'queryOuterDescending'),
    frame(pinned, pinned, device, 'queryOuterDescending'),
    frame(pinned, pinned, pinned, 'queryOuterDescending'),
    ...(hasWindows(model) || headGroups > 1
      ? []
      : [frame(pinned, device, device, 'keyValueOuterAscending'), frame(pinned, device, pinned, 'keyValueOuterAscending')]),
  ];
  return all.filter(({ hiddenGradients }) => strategy?.hiddenGradients === undefined || hiddenGradients === strategy.hiddenGradients);
}

/** Chunks of fetched keys and values that are attended to together: more of them are fewer merges in more memory. */
const MOST_TILE_CHUNKS = 8;

/** One thing changed of a choice: numbers of chunks beside its own, tiles of keys, places. What the user fixed stays. */
export function neighbours(
  setting: Setting,
  counts: readonly number[],
  { frame, strategy: { numChunks } }: { readonly frame: Frame; readonly strategy: Strategy },
): readonly { readonly frame: Frame; readonly numChunks: number }[] {
  const at = counts.indexOf(numChunks);
  const { kvTileChunks } = frame;
  const beside = [counts[at - 1], counts[at + 1]].filter((count) => count !== undefined && count >= kvTileChunks);
  const isFixed = setting.run.kvTileChunks !== undefined || !fetches(frame, setting);
  const tiles = isFixed ? [] : [2 * kvTileChunks, kvTileChunks / 2];
  return [
    ...beside.map((count) => ({ frame, numChunks: count as number })),
    ...tiles
      .filter((tile) => tile >= 1 && tile <= Math.min(MOST_TILE_CHUNKS, numChunks / 2))
      .map((tile) => ({ frame: { ...frame, kvTileChunks: tile }, numChunks })),
    ...frames(setting).map((one) => ({ frame: { ...one, kvTileChunks }, numChunks })),
  ];
}

/** Whether keys and values, or their gradients, come in tiles. */
function fetches({ keyValues, keyValueGradients }: Frame, { places }: Pick<Setting, 'places'>): boolean {
  return keyValues !== places.device || keyValueGradients !== places.device;
}
