/** Plan and launch the training of transformers on very long sequences. */
export type { RunEvent } from './bridge/events.js';
export { exportModel, type ExportedModel, type ExportOptions } from './bridge/exportModel.js';
export { type LaunchOptions, launchRun } from './bridge/launchRun.js';
export type { Run } from './bridge/run.js';
export type { RunResult } from './bridge/runResult.js';
export { decodePlan } from './plan/decode.js';
export { encodePlan } from './plan/encode.js';
export type { ExecutionPlan } from './plan/executionPlan.js';
export { readPlanFile, writePlanFile } from './plan/file.js';
export { planSummary } from './plan/summary.js';
export { simulateSection } from './predict/timeline.js';
export { programFromText, programToText } from './schedule/programText.js';
export { opFromText, opToText, sectionFromText, sectionToText } from './schedule/text.js';
export { FpdtError } from './spec/errors.js';
export type { ForcedStrategy, Strategy } from './spec/strategy.js';
export { type PlanInput, planRun } from './strategy/planRun.js';
export { verifySchedule } from './verify/verify.js';
