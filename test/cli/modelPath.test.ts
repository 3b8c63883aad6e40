import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { parseModel } from '../../src/catalog/index.js';
import { modelFolder } from '../../src/cli/modelPath.js';
import { FpdtError } from '../../src/spec/errors.js';

let home: string;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'hf-home-'));
});

/** As huggingface_hub lays a repository out. */
function cache(hub: string, name: string, commit: string, files: readonly string[]): string {
  const repository = join(hub, `models--${name.replace('/', '--')}`);
  const snapshot = join(repository, 'snapshots', commit);
  mkdirSync(snapshot, { recursive: true });
  mkdirSync(join(repository, 'refs'), { recursive: true });
  writeFileSync(join(repository, 'refs', 'main'), commit);
  for (const file of files) writeFileSync(join(snapshot, file), '{}');
  return snapshot;
}

function errorOf(text: string, environment: Readonly<Record<string, string>>): FpdtError {
  try {
    modelFolder(text, environment);
  } catch (error) {
    if (error instanceof FpdtError) return error;
    throw error;
  }
  throw new Error('no error');
}

describe('a name of a model', () => {
  test('is found in the cache, wherever the environment puts it', () => {
    const inHome = cache(join(home, 'hub'), 'org/name-1.5_b', 'abc', ['config.json']);
    expect(modelFolder('org/name-1.5_b', { HF_HOME: home })).toBe(inHome);
    expect(modelFolder('org/name-1.5_b', { HF_HUB_CACHE: join(home, 'hub'), HF_HOME: '/nowhere' })).toBe(inHome);
    const inXdg = cache(join(home, 'huggingface', 'hub'), 'org/other', 'def', ['config.json']);
    expect(modelFolder('org/other', { XDG_CACHE_HOME: home })).toBe(inXdg);
  });

  test('that the cache lacks is told with the command that downloads it, and what is there', () => {
    const empty = errorOf('org/name', { HF_HOME: home });
    expect(empty).toMatchObject({ code: 'model-not-cached', hint: 'download it: hf download org/name' });
    cache(join(home, 'hub'), 'org/other', 'def', ['config.json']);
    expect(errorOf('org/name', { HF_HOME: home }).hint).toContain('the cache has org/other');
  });

  test('whose download was cut short is not taken', () => {
    cache(join(home, 'hub'), 'org/name', 'abc', []);
    expect(errorOf('org/name', { HF_HOME: home }).code).toBe('model-not-cached');
  });

  test('is not looked for where it is a path', () => {
    expect(modelFolder('examples/demo', { HF_HOME: home })).toBe('examples/demo');
    expect(modelFolder('missing.json', { HF_HOME: home })).toBe('missing.json');
    expect(modelFolder('/a/b/c.json', { HF_HOME: home })).toBe('/a/b/c.json');
  });
});

test('a folder stands for the config.json in it', () => {
  const config = { model_type: 'llama', hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 8 };
  writeFileSync(join(home, 'config.json'), JSON.stringify(config));
  expect(parseModel(home).numLayers).toBe(1);
  expect(() => parseModel(join(home, 'missing'))).toThrow(/cannot read/);
});
