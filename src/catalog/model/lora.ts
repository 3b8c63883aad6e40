/** Which modules of a model have LoRA adapters, and which: names matched as peft matches them (peft/tuners/tuners_utils.py). */
import { FpdtError } from '../../spec/errors.js';
import { ALL_LINEAR, type LoraConfig, type ModulePattern } from '../../spec/loraConfig.js';
import { nearestKey } from '../../spec/nearestKey.js';

/** Of one module: y = x W + scaling * (x A) B, A to `rank` values. */
export interface Adapter {
  readonly rank: number;
  readonly scaling: number;
}

/** Modules of a model by their names in it. */
export interface NamedModules {
  /** Module that holds the decoder layers. */
  readonly layers: string;
  /** Linear modules of all decoder layers. */
  readonly linear: readonly string[];
  /** Modules with weights that have no adapters here: ends and norms. */
  readonly others: readonly string[];
}

/** By module. Throws `no-such-module` for a target that matches none, and `unsupported` for one of another kind. */
export function loraAdapters(config: LoraConfig, modules: NamedModules): ReadonlyMap<string, Adapter> {
  const { linear } = modules;
  checkLayers(config, modules);
  checkTargets(config, modules);
  const isTarget = matcher(config.targets, 'target_modules');
  const isExcluded = config.excluded === undefined ? (): boolean => false : matcher(config.excluded, 'exclude_modules');
  const chosen = linear.filter((name) => isTarget(name) && !isExcluded(name) && hasLayer(name, config, modules));
  if (chosen.length === 0) {
    throw new FpdtError('lora config: exclude_modules and layers_to_transform leave no module of target_modules', {
      code: 'nothing-trains',
      hint: 'leave one of them out',
    });
  }
  const ranks = patterns(config.ranks, 'rank_pattern', chosen);
  const alphas = patterns(config.alphas, 'alpha_pattern', chosen);
  return new Map(
    chosen.map((name) => {
      const rank = ranks(name) ?? config.rank;
      return [name, { rank, scaling: (alphas(name) ?? config.alpha) / (config.usesRootOfRank ? Math.sqrt(rank) : rank) }];
    }),
  );
}

/** A regular expression has the whole name; a name is the module's own or the end of it. */
function matcher(pattern: ModulePattern, key: string): (name: string) => boolean {
  if (typeof pattern !== 'string') return (name) => pattern.some((one) => isNamed(name, one));
  if (key === 'target_modules' && pattern.toLowerCase() === ALL_LINEAR) return () => true;
  const expression = regular(`^(?:${pattern})$`, pattern, key);
  return (name) => expression.test(name);
}

function isNamed(name: string, one: string): boolean {
  return name === one || name.endsWith(`.${one}`);
}

/** What Python's `re` and JavaScript read alike. */
function regular(source: string, given: string, key: string): RegExp {
  try {
    return new RegExp(source, 'u');
  } catch (cause) {
    throw new FpdtError(`lora config.${key}: '${given}' is no regular expression that is read here`, {
      code: 'invalid-value',
      hint: 'list the names of modules instead',
      cause,
    });
  }
}

function checkTargets({ targets }: LoraConfig, { linear, others }: NamedModules): void {
  const isAll = typeof targets === 'string' && targets.toLowerCase() === ALL_LINEAR;
  const singles = typeof targets === 'string' ? [targets] : targets.map((one) => [one]);
  for (const [i, one] of singles.entries()) {
    const matches = matcher(one, 'target_modules');
    const other = isAll ? undefined : others.find(matches);
    if (other !== undefined) {
      throw new FpdtError(`lora config.target_modules: '${other}' has no adapters here`, {
        code: 'unsupported',
        hint: `linear modules of decoder layers do: ${lastNames(linear).join(', ')}`,
      });
    }
    if (linear.some(matches)) continue;
    const text = typeof targets === 'string' ? targets : (targets[i] ?? '');
    throw noSuchModule('target_modules', text, linear);
  }
}

function noSuchModule(key: string, text: string, modules: readonly string[]): FpdtError {
  const names = lastNames(modules);
  const nearest = nearestKey(text, [...names, ...modules]);
  return new FpdtError(`lora config.${key}: no linear module matches '${text}'`, {
    code: 'no-such-module',
    hint: nearest === undefined ? `there are ${names.join(', ')}` : `did you mean '${nearest}'?`,
    details: { text, ...(nearest === undefined ? {} : { nearest }) },
  });
}

function lastNames(modules: readonly string[]): readonly string[] {
  return [...new Set(modules.map((name) => name.split('.').at(-1) ?? name))];
}

function layerOf(name: string, { layers }: NamedModules): number {
  return Number(name.slice(layers.length + 1).split('.')[0]);
}

function hasLayer(name: string, { layers }: LoraConfig, modules: NamedModules): boolean {
  return layers === undefined || layers.includes(layerOf(name, modules));
}

function checkLayers({ layers }: LoraConfig, modules: NamedModules): void {
  const last = Math.max(...modules.linear.map((name) => layerOf(name, modules)));
  const beyond = layers?.find((layer) => layer > last);
  if (beyond === undefined) return;
  throw new FpdtError(`lora config.layers_to_transform: there is no layer ${beyond}`, {
    code: 'invalid-value',
    hint: `layers are counted from 0 to ${last}`,
  });
}

/** The value of the first pattern that matches a name or the end of one, as peft's get_pattern_key finds it. */
function patterns(given: Readonly<Record<string, number>>, key: string, chosen: readonly string[]): (name: string) => number | undefined {
  const entries = Object.entries(given).map(([text, value]) => {
    const expression = regular(`^(?:.*\\.)?(?:${text})$`, text, key);
    if (!chosen.some((name) => expression.test(name))) throw noSuchModule(key, text, chosen);
    return { expression, value };
  });
  return (name) => entries.find(({ expression }) => expression.test(name))?.value;
}
