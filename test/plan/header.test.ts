import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { encodePlan } from '../../src/plan/encode.js';
import { planHeaderSchema } from '../../src/plan/header.js';
import { verifySchedule } from '../../src/verify/verify.js';
import { samplePlan } from './samplePlan.js';

const plan = samplePlan();

describe('the plan header', () => {
  it('has a current JSON Schema, which both languages share', () => {
    const stored: unknown = JSON.parse(readFileSync(new URL('../../schemas/planHeader.json', import.meta.url), 'utf8'));
    expect(stored, 'run npm run generate').toEqual(JSON.parse(JSON.stringify(z.toJSONSchema(planHeaderSchema))));
  });

  const header = JSON.parse(encodePlan(plan).header.toString('utf8')) as object;
  /** Every object of the header with its path, except what passes through as others wrote it. */
  const objects = (value: unknown, path: readonly (string | number)[] = []): readonly (readonly (string | number)[])[] => {
    if (typeof value !== 'object' || value === null || path.at(-1) === 'hfConfig' || path.at(-1) === 'deepspeed') return [];
    const inner = Object.entries(value).flatMap(([key, item]) => objects(item, [...path, key]));
    return Array.isArray(value) ? inner.slice(0, 50) : [path, ...inner];
  };

  /** Keys whose objects have names of their own: they refuse not a name, but what stands under it. */
  const NAMED = ['attributes', 'widths'];

  it('refuses a key that it does not know, wherever it stands', () => {
    const paths = objects(header);
    expect(paths.length).toBeGreaterThan(60);
    for (const path of paths) {
      const changed = structuredClone(header);
      const target = path.reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], changed) as Record<string, unknown>;
      target['surprise'] = NAMED.includes(String(path.at(-1))) ? [1] : 1;
      expect(planHeaderSchema.safeParse(changed).success, path.join('.')).toBe(false);
    }
  });
});

describe('the sample that plan tests use', () => {
  const check = (sections = plan.sections) =>
    verifySchedule({
      ...plan,
      sections,
      numLayers: plan.model.numLayers,
      parameters: plan.parameters,
      classOf: plan.model.code.classOf,
      tied: plan.model.tieWordEmbeddings,
    });

  it('is a legal schedule', () => {
    expect(check()).toEqual([]);
  });

  it('is none without one of its waits', () => {
    const dropped = plan.sections.map((section) =>
      section.name === 'layerForward.1'
        ? { ...section, ops: section.ops.map((op) => (op.id === 15 ? { ...op, waits: [] } : op)) }
        : section,
    );
    expect(check(dropped)).not.toEqual([]);
  });
});
