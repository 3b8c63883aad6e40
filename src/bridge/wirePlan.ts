/** A plan as it travels to the ranks. */

import type { FrameDescriptor } from './protocol.js';

/** What the controller must know of a plan beside its bytes. The data of columns is deflated. */
export interface WirePlan {
  readonly digest: string;
  readonly device: 'cpu' | 'cuda';
  readonly numRanks: number;
  readonly header: Uint8Array;
  readonly prose: Uint8Array;
  readonly columns: readonly { readonly name: string; readonly dtype: FrameDescriptor['dtype']; readonly data: Uint8Array }[];
}

/** Its frames after the envelope, described and in order. */
export function planFrames({ header, prose, columns }: WirePlan): {
  readonly frames: FrameDescriptor[];
  readonly data: readonly Uint8Array[];
} {
  const texts = [
    { name: 'header', dtype: 'json', data: header },
    { name: 'prose', dtype: 'json', data: prose },
  ] as const;
  const all = [...texts, ...columns];
  return { frames: all.map(({ name, dtype, data }) => ({ name, dtype, bytes: data.byteLength })), data: all.map(({ data }) => data) };
}
