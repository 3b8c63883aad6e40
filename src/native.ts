/** The planner's native core where it was built (`node native/build.mjs`), its TypeScript twin where not; equal results. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { type PlaceInput, placeByConflicts as placeByConflictsTwin } from './plan/place.js';

/** What native/addon.cc exports. */
export interface NativeAddon {
  placeByConflicts(sizes: Float64Array, conflicts: Uint8Array, order: Int32Array, alignment: number): Float64Array;
}

export const NATIVE_ADDON_PATH = fileURLToPath(new URL('../native/build/fpdt.node', import.meta.url));

/** The addon, or why there is none. */
export type LoadedAddon = { readonly addon: NativeAddon } | { readonly reason: string };

export function loadNativeAddon(path = NATIVE_ADDON_PATH): LoadedAddon {
  try {
    return { addon: createRequire(import.meta.url)(path) as NativeAddon };
  } catch (error) {
    return { reason: (error as Error).message.split('\n')[0] ?? 'unknown' };
  }
}

let loaded: LoadedAddon | undefined;

export function placeByConflicts(input: PlaceInput): Float64Array {
  loaded ??= loadAndTell();
  if ('addon' in loaded) return loaded.addon.placeByConflicts(input.sizes, input.conflicts, input.order, input.alignment);
  return placeByConflictsTwin(input);
}

function loadAndTell(): LoadedAddon {
  const result = loadNativeAddon();
  if ('reason' in result) {
    process.stderr.write(`fpdt: the native planner core is not built (node native/build.mjs builds it); using the slower TypeScript twin, with equal results\n`);
  }
  return result;
}
