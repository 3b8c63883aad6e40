/** What is known about models and devices. */
export { parseModel } from './models.js';
export { parseCluster } from './clusters.js';
export { DEVICE_NAMES } from './devices.js';
export { parameterTable } from './parameters.js';
export { parseSpecs, type SpecInput, type Specs } from './specs.js';
