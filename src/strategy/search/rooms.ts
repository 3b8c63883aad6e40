/** What pools have left to keep things in for the whole step. */
import { roomBytes } from '../../memory/ledger.js';
import type { LayerStrategy, Strategy } from '../../spec/strategy.js';
import { chunkCounts } from '../candidates.js';
import type { Evaluator } from '../evaluator.js';
import type { Setting } from '../setting.js';
import { assembleUniform, keptBytes, pinnedPool } from './assemble.js';
import type { FilledSegment, KeptBytes, Room } from './fill.js';
import { frames } from './frames.js';

/** Every layer's output and input on the host. */
export function allPinned(setting: Setting): FilledSegment {
  const pinned = pinnedPool(setting);
  return { length: 1, checkpoints: pinned, attentionOutput: pinned };
}

/** What there is to keep, and the room for it: the device's first, files last. */
export interface Keeping {
  readonly bytes: KeptBytes;
  readonly rooms: readonly Room[];
}

/** Beside what is not kept for the whole step of a strategy that treats all layers alike. */
export function keepingBeside(setting: Setting, evaluate: Evaluator, lean: Strategy): Keeping {
  const { model, places } = setting;
  const bytes = keptBytes(setting, lean);
  const [{ checkpoints, attentionOutput }] = lean.layers as [LayerStrategy];
  // On the device what the head reads has an instance too.
  const numStates = model.numLayers + (checkpoints === places.device ? 1 : 0);
  const kept = (pool: string): number =>
    (pool === checkpoints ? numStates * bytes.checkpoint : 0) + (pool === attentionOutput ? model.numLayers * bytes.output : 0);
  const kinds = ['device', 'pinned', 'file'];
  const rooms = evaluate
    .memory(setting, lean)
    .pools.toSorted((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind))
    .map((pool) => ({
      pool: pool.pool,
      isFile: pool.kind === 'file',
      isDevice: pool.kind === 'device',
      // While the model is loaded, nothing is kept yet.
      bytes: roomBytes(pool) - Math.max(0, ...pool.instants.map(({ totalBytes }) => totalBytes)) + kept(pool.pool),
    }));
  return { bytes, rooms };
}

/** No strategy leaves more: of two in as many chunks as can be, the tensors of a layer are on the device in one and elsewhere in the other. */
export function mostKeeping(setting: Setting, evaluate: Evaluator): Keeping {
  const numChunks = chunkCounts(setting.run).at(-1) ?? 1;
  const all = frames(setting);
  const [first, last] = [all[0], all.at(-1)].flatMap((frame) =>
    frame === undefined ? [] : [keepingBeside(setting, evaluate, assembleUniform(setting, frame, numChunks, allPinned(setting)))],
  );
  if (first === undefined || last === undefined) throw new RangeError('there is no frame');
  return { ...first, rooms: first.rooms.map((room, at) => ({ ...room, bytes: Math.max(room.bytes, last.rooms[at]?.bytes ?? 0) })) };
}
