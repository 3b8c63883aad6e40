/** Facts of this machine, from the native addon. */
import { BUILD_HINT, type FactSources, type LoadedAddon, loadNativeAddon } from '../native.js';
import { FpdtError } from '../spec/errors.js';
import type { MachineFacts } from './facts.js';

/** Nothing is written, and no device computes. Throws `no-native-addon`. */
export function readMachineFacts(sources: FactSources = {}, loaded: LoadedAddon = loadNativeAddon()): MachineFacts {
  if ('addon' in loaded) return JSON.parse(loaded.addon.machineFacts(sources)) as MachineFacts;
  throw new FpdtError(`facts of this machine: ${loaded.reason}`, { code: 'no-native-addon', hint: BUILD_HINT });
}
