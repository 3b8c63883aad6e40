/** What a strategy decides for all layers at once: where the tensors of one layer at work live, and the order of backward. */
import type { BackwardOrder } from '../../spec/strategy.js';
import type { Setting } from '../setting.js';

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
  const { kvTileChunks = 1, strategy } = run;
  const frame = (keyValues: string, keyValueGradients: string, hiddenGradients: string, backwardOrder: BackwardOrder): Frame => ({
    keyValues,
    keyValueGradients,
    hiddenGradients,
    backwardOrder,
    kvTileChunks,
  });
  const hasWindows = model.windows.some((window) => window !== null);
  const all = [
    frame(device, device, device, 'queryOuterDescending'),
    frame(device, device, pinned, 'queryOuterDescending'),
    frame(pinned, device, device, 'queryOuterDescending'),
    frame(pinned, device, pinned, 'queryOuterDescending'),
    frame(pinned, pinned, device, 'queryOuterDescending'),
    frame(pinned, pinned, pinned, 'queryOuterDescending'),
    ...(hasWindows
      ? []
      : [frame(pinned, device, device, 'keyValueOuterAscending'), frame(pinned, device, pinned, 'keyValueOuterAscending')]),
  ];
  return all.filter(({ hiddenGradients }) => strategy?.hiddenGradients === undefined || hiddenGradients === strategy.hiddenGradients);
}

/** Whether keys and values, or their gradients, come in tiles. */
export function fetches({ keyValues, keyValueGradients }: Frame, { places }: Pick<Setting, 'places'>): boolean {
  return keyValues !== places.device || keyValueGradients !== places.device;
}
