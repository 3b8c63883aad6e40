import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseCluster } from '../../src/catalog/clusters.js';
import { fewerLayers } from '../../src/catalog/fewerLayers.js';
import { parseModel } from '../../src/catalog/models.js';
import { OP_KIND_NAMES } from '../../src/catalog/ops/index.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { probePlans } from '../../src/strategy/probePlans.js';

const FAMILIES = JSON.parse(readFileSync(new URL('../families.json', import.meta.url), 'utf8')) as Readonly<Record<string, JsonObject>>;
const cluster = parseCluster({ gpus: 2, gpu: 'cpu' });

describe('plans that measure a machine', () => {
  it.each(Object.entries(FAMILIES))('of %s have every kind of its layers', async (_, config) => {
    const whole = parseModel(config);
    const cut = parseModel(fewerLayers(config, 1));
    expect(cut.code.classes).toEqual(whole.code.classes);
    expect(cut.numLayers).toBe(Math.max(...whole.code.classes.map((__, kind) => whole.code.classOf.indexOf(kind))) + 1);
    const plans = await probePlans({ model: config, cluster, chunkTokens: 16 });
    expect(plans.map(({ strategy }) => strategy.numChunks)).toEqual([2, 3]);
  });

  it('have every kind of op between them, and long and short rows', async () => {
    const config = { ...FAMILIES['llama'], num_hidden_layers: 30 };
    const plans = await probePlans({ model: config, cluster, chunkTokens: 16 });
    const kinds = new Set(plans.flatMap(({ prediction }) => Object.keys(prediction.byKind)));
    // Of losses one is enough: their rates are those of products and of what passes through memory.
    expect(OP_KIND_NAMES.filter((kind) => !kinds.has(kind))).toEqual(['lossWeighted', 'lossOnly']);
    expect(plans.map(({ model }) => model.numLayers)).toEqual([2, 1]);
    expect(plans.map(({ strategy }) => strategy.numTokenTiles)).toEqual([1, 4]);
  });

  it('cut lists by layer with the layers', () => {
    const config = { ...FAMILIES['llama'], num_hidden_layers: 4, some_layers: ['a', 'b', 'c', 'd'], others: [1, 2] };
    expect(fewerLayers(config, 2)).toMatchObject({ num_hidden_layers: 2, some_layers: ['a', 'b'], others: [1, 2] });
  });
});
