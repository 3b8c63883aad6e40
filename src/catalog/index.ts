/** What is known about models and devices. */
export { parseModel } from './models.js';
export { parseCluster, DEVICE_NAMES } from './clusters.js';
export { parameterTable } from './parameters.js';
export { scratchFormula, type ScratchBytes } from './scratch.js';
export { causalPairs, opBytes, opFlops, type OpWork } from './flops.js';
export { parseSpecs, type SpecInput, type Specs } from './specs.js';
