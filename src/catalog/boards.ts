/** The catalog entry of a board that is here. */
import { FpdtError } from '../spec/errors.js';
import { type DeviceEntry, DEVICES } from './gpus.js';

/** `NVIDIA` is a word of newer drivers. */
const VENDOR = /^NVIDIA\s+/;

/** By the name that NVML gives it. Throws `unknown-device`. */
export function entryOfBoard(nvmlName: string): DeviceEntry {
  const plain = nvmlName.replace(VENDOR, '');
  const entry = DEVICES.find(({ nvmlNames }) => nvmlNames.some((name) => name.replace(VENDOR, '') === plain));
  if (entry !== undefined) return entry;
  throw new FpdtError(`the catalog has no rates of '${nvmlName}'`, {
    code: 'unknown-device',
    hint: `take those of the nearest with --gpu: ${DEVICES.map(({ name }) => name).join(', ')}`,
  });
}
