import { describe, expect, it } from 'vitest';
import { checkRequirements, parseRequirements, requirementsToText } from '../../src/report/requirements.js';
import { samplePlan } from '../plan/samplePlan.js';
import { errorOf } from '../spec/inputs.js';

const plan = samplePlan();
const limits = (text: string): readonly number[] => parseRequirements(text).map(({ limit }) => limit);
const met = (text: string, price?: number): readonly boolean[] =>
  checkRequirements(plan, parseRequirements(text), price).map((one) => one.met);

describe('requirements', () => {
  it('are names, operators and limits in the units that people write', () => {
    expect(parseRequirements('stepSeconds<60, hbm <= 75GiB')).toEqual([
      { text: 'stepSeconds<60', name: 'stepSeconds', operator: '<', limit: 60 },
      { text: 'hbm <= 75GiB', name: 'hbm', operator: '<=', limit: 75 * 2 ** 30 },
    ]);
    expect(limits('stepSeconds<1.5h,stepSeconds<2min,stepSeconds<90s,stepSeconds<1e3,exposedCopySeconds<5ms')).toEqual([
      5400, 120, 90, 1000, 0.005,
    ]);
    expect(limits('host<1T,disk<1024,mfu>=40%,mfu>0.4,tokensPerSecond>2.5e3')).toEqual([2 ** 40, 1024, 0.4, 0.4, 2500]);
  });

  it('are held against the plan, each at its own edge', () => {
    // 2 s, 30 tokens a second, 605 MiB in HBM and 40% MFU.
    expect(met('stepSeconds<2,stepSeconds<=2,stepSeconds>2,stepSeconds>=2')).toEqual([false, true, false, true]);
    expect(met('hbm<=605M,hbm<605M,host>0.5G,tokensPerSecond>29,mfu>=40%,exposedCopySeconds<99ms,hostBoundSeconds<0.2')).toEqual([
      true,
      false,
      true,
      true,
      true,
      false,
      true,
    ]);
    const hours = (plan.cluster.numRanks * 2) / 3600;
    expect(checkRequirements(plan, parseRequirements('gpuHoursPerStep<1,usdPerStep<1'), 10)).toMatchObject([
      { value: hours },
      { value: 10 * hours },
    ]);
  });

  it('a pool that the cluster does not have holds nothing', () => {
    const memory = { ...plan.memory, pools: plan.memory.pools.filter(({ pool }) => pool !== 'disk') };
    expect(checkRequirements({ ...plan, memory }, parseRequirements('disk<1G'))).toMatchObject([{ value: 0, met: true }]);
  });

  it('are printed one a line, with values', () => {
    const text = requirementsToText(checkRequirements(plan, parseRequirements('stepSeconds<60,hbm<1M,mfu>0.1')));
    expect(text.split('\n')).toEqual([
      'Require     met      stepSeconds<60  2.00 s',
      'Require     NOT MET  hbm<1M          605 MiB',
      'Require     met      mfu>0.1         40.0%',
    ]);
  });

  it.each([
    ['', /'' is not of the form NAME OPERATOR LIMIT/, /operators: <= >= < >; names: stepSeconds, .*hbm, host, disk/],
    ['stepSeconds<60,', /'' is not of the form/, /names:/],
    ['stepSeconds', /not of the form/, /names:/],
    ['stepSeconds=60', /not of the form/, /operators:/],
    ['stepSeconds<=>60', /not of the form/, /operators:/],
    ['stepSecond<60', /nothing of a plan is called 'stepSecond'/, /did you mean 'stepSeconds'\? names: /],
    ['constructor<60', /nothing of a plan is called 'constructor'/, /names: /],
    ['hbm<seventy', /expected a limit of at least 0, found 'seventy'/, /75GiB/],
    ['hbm<-1', /found '-1'/, /75GiB/],
    ['stepSeconds<NaN', /found 'NaN'/, /60, 90s, 1\.5h/],
    ['stepSeconds<60 parsecs', /found '60 parsecs'/, /90s/],
    ['stepSeconds<1e999', /found '1e999'/, /90s/],
    ['tokensPerSecond>%', /found '%'/, /1000/],
    ['mfu>%', /found '%'/, /40%/],
  ])('%j is refused', (text, message, hint) => {
    const error = errorOf(() => parseRequirements(text));
    expect(error.code).toBe('invalid-requirement');
    expect(error.message).toMatch(message);
    expect(error.hint).toMatch(hint);
  });

  it('of money take a price', () => {
    expect(errorOf(() => met('usdPerBillionTokens<5'))).toMatchObject({
      code: 'invalid-requirement',
      hint: expect.stringContaining('--price') as string,
    });
  });
});
