import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { planToJson } from '../../src/report/planJson.js';
import { samplePlan } from '../plan/samplePlan.js';

describe('schemas of what commands print', () => {
  const printed = JSON.parse(JSON.stringify(planToJson(samplePlan(), 2))) as object;

  it('take a plan with every feature, and no field that they do not know', () => {
    expect(OUTPUT_SCHEMAS.planSummary.parse(printed)).toEqual(printed);
    expect(OUTPUT_SCHEMAS.planSummary.safeParse({ ...printed, surprise: 1 }).success).toBe(false);
    expect(OUTPUT_SCHEMAS.planSummary.safeParse({ ...printed, cost: undefined }).success).toBe(false);
  });

  it('are files by the kind that they are of, each a line of docs/cli.md', () => {
    const documented = readFileSync('docs/cli.md', 'utf8');
    for (const kind of Object.keys(OUTPUT_SCHEMAS).filter((name) => name !== 'error')) {
      const { properties } = JSON.parse(readFileSync(`schemas/cli/${kind}.json`, 'utf8')) as {
        readonly properties: { readonly kind: { readonly const: string } };
      };
      expect(properties.kind.const).toBe(kind);
      expect(documented).toContain(`\`${kind}\``);
    }
  });
});
