/** The planner's native core where it was built (`node native/build.mjs`), its TypeScript twin where not; equal results. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type PlaceInput, placeByConflicts as placeByConflictsTwin } from './address/place.js';
import { PACKAGE_ROOT } from './package.js';

/** What native/addon.cc exports. */
export interface NativeAddon {
  placeByConflicts(sizes: Float64Array, conflicts: Uint8Array, order: Int32Array, alignment: number): Float64Array;
}

export const NATIVE_ADDON_PATH = join(PACKAGE_ROOT, 'native', 'build', 'fpdt.node');

/** The addon; or, where it does not load, the error if the file is there. */
export interface LoadedAddon {
  readonly addon?: NativeAddon;
  readonly error?: Error;
}

export function loadNativeAddon(path = NATIVE_ADDON_PATH): LoadedAddon {
  if (!existsSync(path)) return {};
  try {
    return { addon: createRequire(import.meta.url)(path) as NativeAddon };
  } catch (error) {
    return { error: error as Error };
  }
}

let loaded: LoadedAddon | undefined;

export function placeByConflicts(input: PlaceInput): Float64Array {
  loaded ??= tellWhenMissing(loadNativeAddon());
  if (loaded.addon === undefined) return placeByConflictsTwin(input);
  return loaded.addon.placeByConflicts(input.sizes, input.conflicts, input.order, input.alignment);
}

function tellWhenMissing(result: LoadedAddon): LoadedAddon {
  if (result.addon !== undefined) return result;
  const why = result.error === undefined ? 'is not built' : `does not load (${result.error.message.split('\n')[0]})`;
  process.stderr.write(
    `fpdt: the native planner core ${why}; using its TypeScript twin, slower and with equal results. Build it with: node native/build.mjs\n`,
  );
  return result;
}
