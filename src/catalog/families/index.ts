/** The families: a JSON file each. Adding one is adding it here and beside this file. */
import { keysOf, type Setting } from '../model/settings.js';
import { familySchema, type WrittenFamily } from '../model/written.js';
import cohere from './cohere.json' with { type: 'json' };
import cohere2 from './cohere2.json' with { type: 'json' };
import exaone4 from './exaone4.json' with { type: 'json' };
import falcon from './falcon.json' with { type: 'json' };
import gemma from './gemma.json' with { type: 'json' };
import gemma2 from './gemma2.json' with { type: 'json' };
import gemma3Text from './gemma3_text.json' with { type: 'json' };
import glm from './glm.json' with { type: 'json' };
import glm4 from './glm4.json' with { type: 'json' };
import gpt2 from './gpt2.json' with { type: 'json' };
import gptNeo from './gpt_neo.json' with { type: 'json' };
import gptNeox from './gpt_neox.json' with { type: 'json' };
import gptj from './gptj.json' with { type: 'json' };
import granite from './granite.json' with { type: 'json' };
import helium from './helium.json' with { type: 'json' };
import llama from './llama.json' with { type: 'json' };
import ministral from './ministral.json' with { type: 'json' };
import mistral from './mistral.json' with { type: 'json' };
import nemotron from './nemotron.json' with { type: 'json' };
import olmo from './olmo.json' with { type: 'json' };
import olmo2 from './olmo2.json' with { type: 'json' };
import olmo3 from './olmo3.json' with { type: 'json' };
import opt from './opt.json' with { type: 'json' };
import phi from './phi.json' with { type: 'json' };
import phi3 from './phi3.json' with { type: 'json' };
import qwen2 from './qwen2.json' with { type: 'json' };
import qwen3 from './qwen3.json' with { type: 'json' };
import seedOss from './seed_oss.json' with { type: 'json' };
import smollm3 from './smollm3.json' with { type: 'json' };
import stablelm from './stablelm.json' with { type: 'json' };
import starcoder2 from './starcoder2.json' with { type: 'json' };

const FILES: readonly { readonly modelTypes: readonly string[]; readonly settings: Readonly<Record<string, Setting>> }[] = [
  cohere,
  cohere2,
  exaone4,
  falcon,
  gemma,
  gemma2,
  gemma3Text,
  glm,
  glm4,
  gpt2,
  gptNeo,
  gptNeox,
  gptj,
  granite,
  helium,
  llama,
  ministral,
  mistral,
  nemotron,
  olmo,
  olmo2,
  olmo3,
  opt,
  phi,
  phi3,
  qwen2,
  qwen3,
  seedOss,
  smollm3,
  stablelm,
  starcoder2,
];

export const MODEL_TYPES: readonly string[] = FILES.flatMap(({ modelTypes }) => modelTypes);

/** The family that takes a `model_type` of Hugging Face's. */
export function familyOf(modelType: string): WrittenFamily | undefined {
  const file = FILES.find(({ modelTypes }) => modelTypes.includes(modelType));
  return file === undefined ? undefined : familySchema.parse(file);
}

const READ = FILES.flatMap(({ settings }) =>
  Object.entries(settings).flatMap(([name, setting]) => keysOf(setting).map((key) => ({ name, key }))),
);

/** Keys that any family reads for a setting which some family reads `key` for: what models of other kinds call the same thing. */
export function keysOfSettings(key: string): ReadonlySet<string> {
  const names = new Set(READ.filter((one) => one.key === key).map(({ name }) => name));
  return new Set(READ.filter(({ name }) => names.has(name)).map((one) => one.key));
}
