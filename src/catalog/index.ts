/** What is known about models and devices. */
export { parseModel } from './models.js';
export { parseCluster, DEVICE_NAMES } from './clusters.js';
export { parameterTable } from './parameters.js';
export { parseSpecs, type SpecInput, type Specs } from './specs.js';
