/** Plan and launch the training of transformers on very long sequences. */
export type { RunEvent } from './bridge/events.js';
export { type LaunchOptions, launchRun } from './bridge/launchRun.js';
export type { Run } from './bridge/run.js';
export type { RunResult } from './bridge/runResult.js';
export { decodePlan } from './plan/decode.js';
export { encodePlan } from './plan/encode.js';
export type { ExecutionPlan } from './plan/executionPlan.js';
export { readPlanFile, writePlanFile } from './plan/file.js';
export { type PlanInput, planRun } from './plan/planRun.js';
export { planSummary } from './plan/summary.js';
export { simulateSection } from './schedule/simulate.js';
export { opFromText, opToText, sectionFromText, sectionToText } from './schedule/text.js';
export { verifySchedule } from './schedule/verify.js';
export { FpdtError } from './spec/errors.js';
