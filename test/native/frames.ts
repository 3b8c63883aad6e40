/** Calls of plans as the verifier replays them. */
import { parseSpecs } from '../../src/catalog/specs.js';
import { buildStrategy } from '../../src/strategy/evaluate.js';
import { memoryEstimator } from '../../src/strategy/evaluator.js';
import { settingOf } from '../../src/strategy/setting.js';
import { findStrategy } from '../../src/strategy/findStrategy.js';
import { withChunks } from '../../src/spec/sizes.js';
import { type CallFrame, frameOf } from '../../src/verify/callFrame.js';
import { placeCalls } from '../../src/verify/calls.js';
import { contextOf } from '../../src/verify/context.js';
import { flatten } from '../../src/verify/flat.js';
import type { VerifyInput } from '../../src/verify/verify.js';
import { Violations } from '../../src/verify/violation.js';

/** Every call of the plan's own; what is found wrong in one is in the violations of its context. */
export function framesOf(plan: VerifyInput): readonly CallFrame[] {
  const context = contextOf(plan, new Violations(50));
  const flats = new Map(plan.sections.map((section) => [section.name, flatten(section, context)] as const));
  const calls = placeCalls(flats, context).filter(({ call }) => call.owner === 'plan');
  return calls.map(({ call, flat, name }) => frameOf(flat, call.args, name, { ...context, violations: new Violations(50) }));
}

/** Llama-3-8B as some policy would train it on this cluster. */
export function realPlan(cluster: object, run: object): VerifyInput {
  const model = 'examples/llama-3-8b.json';
  const { deepspeed, ...specs } = parseSpecs({
    model,
    cluster,
    run,
    deepspeed: { zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } },
  } as Parameters<typeof parseSpecs>[0]);
  const asked = { ...specs, deepspeed: deepspeed.config };
  const { strategy } = findStrategy(asked, memoryEstimator());
  const setting = settingOf({ ...asked, run: withChunks(asked.run, strategy.numChunks) });
  const { windows, numLayers, code, tieWordEmbeddings } = setting.model;
  const facts = { windows, numLayers, parameters: setting.parameters, classOf: code.classOf, tied: tieWordEmbeddings };
  return { ...buildStrategy(setting, strategy).schedule, ...facts };
}
