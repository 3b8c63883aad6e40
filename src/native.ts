/** The native addon where it was built (`node native/build.mjs`): what TypeScript cannot ask of a machine, and what it does slowly. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { PACKAGE_ROOT } from './package.js';

/** What native/addon.cc exports. */
export interface NativeAddon {
  /** The JSON text of MachineFacts. Throws where a source is no string. */
  machineFacts(sources: FactSources): string;
  /** A call's ReplayColumns replayed: its ReplayedColumns (src/verify). Throws a TypeError or RangeError for what is none. */
  replayCall(columns: object): object;
  /** The same on a thread of its own, until it is cancelled: then the result is rejected. */
  startReplay(columns: object): StartedReplay;
}

export interface StartedReplay {
  readonly result: Promise<object>;
  readonly cancel: () => void;
}

/** Where facts are read, where that is not of this machine: a name that dlopen takes, and folders. */
export interface FactSources {
  readonly nvmlLibrary?: string;
  readonly sysRoot?: string;
  readonly procRoot?: string;
  readonly cgroupRoot?: string;
}

const NATIVE_FOLDER = join(PACKAGE_ROOT, 'native');
/** Built here, else as it came with the package for machines of this kind. */
const ADDON_PATHS = [
  join(NATIVE_FOLDER, 'build', 'fpdt.node'),
  join(NATIVE_FOLDER, 'prebuilt', `${process.platform}-${process.arch}`, 'fpdt.node'),
];
export const BUILD_SCRIPT = join(NATIVE_FOLDER, 'build.mjs');
export const BUILD_HINT = `build it, with a C++ compiler: node '${BUILD_SCRIPT}'`;

/** The addon or, in words, why there is none. */
export type LoadedAddon = { readonly addon: NativeAddon } | { readonly reason: string };

export function loadNativeAddon(paths: readonly string[] = ADDON_PATHS): LoadedAddon {
  const tried = paths.filter((path) => existsSync(path)).map(load);
  return tried.find((loaded) => 'addon' in loaded) ?? tried[0] ?? { reason: 'the native addon is not built' };
}

function load(path: string): LoadedAddon {
  try {
    const addon = createRequire(import.meta.url)(path) as Partial<NativeAddon>;
    if (addon.machineFacts === undefined || addon.startReplay === undefined)
      return { reason: 'the native addon was built from older sources' };
    return { addon: addon as NativeAddon };
  } catch (error) {
    return { reason: `the native addon does not load: ${(error as Error).message.split('\n')[0]}` };
  }
}
