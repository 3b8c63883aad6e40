import { sampleCode } from '../catalog/sampleCode.js';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { askParameterShapes, checkParameters } from '../../src/bridge/parameterShapes.js';
import { callPython } from '../../src/bridge/pythonCall.js';
import { resolvePython } from '../../src/bridge/python.js';
import type { ModelSpec, ParameterTable, ParameterView } from '../../src/spec/types.js';
import { makeFolder } from './folder.js';
import { PATIENCE_MS } from './patience.js';

const CALLS = `
import json, os, time
def invoke(name, arguments):
    if name == "add": return json.dumps({"ok": sum(json.loads(arguments)["numbers"])})
    if name == "die": os._exit(9)
    if name == "sleep": time.sleep(600)
    if name == "work":
        started = time.process_time()
        while time.process_time() - started < json.loads(arguments)["seconds"]: pass
        return json.dumps({"ok": True})
    return json.dumps({"error": {"kind": "KeyError", "message": name, "traceback": "Traceback of it"}})
`;
const HF_CONFIG = {
  model_type: 'llama',
  hidden_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  intermediate_size: 12,
  vocab_size: 16,
  tie_word_embeddings: false,
};

describe('a guarded call', { timeout: PATIENCE_MS }, () => {
  test('returns JSON, time after time', async () => {
    const numbers = [call('add', { numbers: [1, 2] }), call('add', { numbers: [3, 4] })];
    expect(await Promise.all(numbers)).toEqual([3, 7]);
  });

  test('an exception becomes an error with its traceback', async () => {
    await expect(call('nothing')).rejects.toMatchObject({
      code: 'python-call-failed',
      message: 'Python call nothing failed: KeyError: nothing',
      details: { traceback: 'Traceback of it' },
    });
  });

  test('the death of the interpreter ends the call, and the next call works', async () => {
    await expect(call('die')).rejects.toThrow(/ended|closed the channel/);
    expect(await call('add', { numbers: [1] })).toBe(1);
  });

  test('a call that hangs is ended', async () => {
    await expect(call('sleep', {}, { idleSeconds: 0.5 })).rejects.toThrow('sleep has done nothing for 0.5 s');
  });

  test('a call that works for longer than it may idle is not', async () => {
    expect(await call('work', { seconds: 1.2 }, { idleSeconds: 0.5 })).toBe(true);
  });

  test('an interpreter that does not exist is a clean error, and the next call works', async () => {
    await expect(call('add', {}, { python: '/nowhere/python' })).rejects.toMatchObject({ code: 'python-call-failed' });
    expect(await call('add', { numbers: [1] })).toBe(1);
  });

  test('transformers tells the parameters of a model', async () => {
    const found = await askParameterShapes({ hfConfig: HF_CONFIG }, { python: resolvePython() });
    expect(found.shapes['model.layers.0.self_attn.k_proj.weight']).toEqual([4, 8]);
    checkParameters({ model: model(false), parameters: table() }, found);
  });

  test('a config that transformers refuses is an error with its message', async () => {
    const asked = askParameterShapes({ hfConfig: { ...HF_CONFIG, model_type: 'unheard-of' } }, { python: resolvePython() });
    await expect(asked).rejects.toThrow('unheard-of');
  });
});

describe('checkParameters', () => {
  test('names what differs', () => {
    const { shapes, numParameters } = plain();
    const found = { shapes: { ...shapes, 'model.norm.weight': [9], 'model.extra.bias': [1] }, numParameters };
    expect(() => checkParameters({ model: model(false), parameters: table() }, found)).toThrow(
      "the planned parameters are not the model's: model.extra.bias: planned nothing, transformers has [1]; model.norm.weight: planned [8], transformers has [9]",
    );
  });

  test('compares the number of parameters', () => {
    const found = { ...plain(), numParameters: 1 };
    expect(() => checkParameters({ model: model(false), parameters: table() }, found)).toThrow('transformers has 1');
  });

  test('a tied head may be listed once or twice', () => {
    const tied = table();
    const parameters = { ...tied, head: tied.head.filter(({ name }) => name !== 'lm_head.weight') };
    checkParameters({ model: model(true), parameters }, plain());
    expect(() => checkParameters({ model: model(false), parameters }, plain())).toThrow('lm_head.weight');
  });
});

test('layers and head are called what the model calls them', () => {
  const [{ shapes, numParameters }, one, parameters] = [plain(), model(true), table()];
  const renamed = Object.entries(shapes).map(([name, shape]) => [name.replace('model.layers', 'h').replace('lm_head', 'out'), shape]);
  const found = { shapes: Object.fromEntries(renamed) as typeof shapes, numParameters };
  const own = { ...one, code: { ...one.code, layers: 'h', lmHead: { ...one.code.lmHead, module: 'out' } } };
  const tied = { ...parameters, head: parameters.head.filter(({ name }) => name !== 'lm_head.weight') };
  checkParameters({ model: own, parameters: tied }, found);
  expect(() => checkParameters({ model: one, parameters: tied }, found)).toThrow('h.0.input_layernorm.weight: planned nothing');
});

async function call(name: string, given: Record<string, unknown> = {}, changes: { python?: string; idleSeconds?: number } = {}) {
  const file = join(await makeFolder(), 'calls.py');
  writeFileSync(file, CALLS);
  return callPython({ python: resolvePython(), file, name, arguments: given, idleSeconds: 60, hint: 'none', ...changes });
}

function view(name: string, ...shape: number[]): ParameterView {
  return { name, shape, offset: 0, numel: shape.reduce((a, b) => a * b, 1), trainable: true };
}

function table(): ParameterTable {
  const attention = [view('self_attn.q_proj.weight', 8, 8), view('self_attn.k_proj.weight', 4, 8), view('self_attn.v_proj.weight', 4, 8)];
  const mlp = [view('mlp.gate_proj.weight', 12, 8), view('mlp.up_proj.weight', 12, 8), view('mlp.down_proj.weight', 8, 12)];
  const norms = [view('input_layernorm.weight', 8), view('post_attention_layernorm.weight', 8)];
  const layer = [...attention, view('self_attn.o_proj.weight', 8, 8), ...mlp, ...norms];
  const head = [view('model.norm.weight', 8), view('lm_head.weight', 16, 8)];
  const embed = [view('model.embed_tokens.weight', 16, 8)];
  const numModelParameters = [...layer, ...head, ...embed].reduce((sum, one) => sum + one.numel, 0);
  return {
    layers: [{ weights: layer, numElements: 0 }],
    head,
    numHeadNormElements: 8,
    embed,
    numHeadElements: 0,
    numEmbedElements: 0,
    numModelParameters,
    numTrainedParameters: numModelParameters,
  };
}

function plain() {
  const { layers, head, embed, numModelParameters } = table();
  const named = [...(layers[0]?.weights ?? []).map((one) => ({ ...one, name: `model.layers.0.${one.name}` })), ...head, ...embed];
  return { shapes: Object.fromEntries(named.map(({ name, shape }) => [name, shape])), numParameters: numModelParameters };
}

function model(tieWordEmbeddings: boolean): ModelSpec {
  return {
    kind: 'model',
    family: 'llama',
    numLayers: 1,
    hiddenSize: 8,
    numHeads: 2,
    numKvHeads: 1,
    headDim: 4,
    vocabSize: 16,
    tieWordEmbeddings,
    windows: [null],
    code: sampleCode(),
    hfConfig: HF_CONFIG,
  };
}
