/** ds_configs in the styles of those that people have: read with DeepSpeed's own values, or refused as they should be. */
import { expect, it } from 'vitest';
import { judgeConfigs, REFUSED } from '../../scripts/compat/dsConfigs.js';

it('plans what asks for nothing that is refused, with the values of DeepSpeed, and nothing that DeepSpeed refuses', async () => {
  const verdicts = await judgeConfigs({ plans: false });
  expect(verdicts.filter(({ ok }) => !ok)).toEqual([]);
  expect(verdicts.length).toBeGreaterThanOrEqual(60);
  const refused = verdicts.filter(({ verdict }) => verdict === 'refused').map(({ name }) => name);
  expect(refused.filter((name) => REFUSED[name] === undefined)).toEqual([]);
  for (const { verdict, hint, message } of verdicts) if (verdict !== 'plans') expect(`${hint}${message}`).toMatch(/\w/);
});
