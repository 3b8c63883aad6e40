/** All devices by name. Light to load: the command line's help lists them. */
import { CPU } from './cpu.js';
import { type DeviceEntry, DEVICES } from './gpus.js';

export const ALL_DEVICES: readonly DeviceEntry[] = [...DEVICES, CPU];
export const DEVICE_NAMES: readonly string[] = ALL_DEVICES.map(({ name }) => name);
