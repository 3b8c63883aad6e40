/** Bounds of a ds_config's keys, against the config models of the DeepSpeed that is installed. */
import { execa } from 'execa';
import { beforeAll, expect, it } from 'vitest';
import { resolvePython } from '../../src/bridge/python.js';
import { checkKeys } from '../../src/spec/deepspeedCheck.js';
import { DEEPSPEED_KEYS, type KeyTable } from '../../src/spec/deepspeedKeys.js';
import { isObject, type JsonObject } from '../../src/spec/parseJson.js';

/** Bounds by path of all fields that have some, by both names where a field has two; and of each config whether DeepSpeed takes it. */
const ASK = `
import json, os, sys, typing
out = os.dup(1)
os.dup2(2, 1)
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.compile.config import CompileConfig
from deepspeed.monitor.config import DeepSpeedMonitorConfig
from deepspeed.runtime.config import DeepSpeedConfig, HybridEngineConfig
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.utils.config import DeepSpeedThroughputTimerConfig
SECTIONS = {
    "zero_optimization.": DeepSpeedZeroConfig, "hybrid_engine.": HybridEngineConfig, "bf16.": DeepSpeedBF16Config,
    "fp16.": DeepSpeedFP16Config, "comms_logger.": CommsLoggerConfig, "timers.throughput.": DeepSpeedThroughputTimerConfig,
    "compile.": CompileConfig, "": DeepSpeedMonitorConfig,
}
SIGNS = {Gt: ("gt", ">"), Ge: ("ge", ">="), Lt: ("lt", "<"), Le: ("le", "<=")}
def models(annotation):
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for one in typing.get_args(annotation) for model in models(one)]
def bounds(model, at):
    for name, field in model.model_fields.items():
        signs = [(SIGNS[type(one)][1], getattr(one, SIGNS[type(one)][0])) for one in field.metadata if type(one) in SIGNS]
        for path in {f"{at}{name}", f"{at}{field.alias or name}"}:
            if signs:
                yield path, " ".join(f"{sign}{bound:g}" for sign, bound in signs)
            for inner in models(field.annotation):
                yield from bounds(inner, f"{path}.")
def takes(config):
    try:
        zero = {"stage": 3, **config.pop("zero_optimization", {})}
        DeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, **config, "zero_optimization": zero})
    except Exception:
        return False
    return True
said = {"bounds": dict(pair for at, model in SECTIONS.items() for pair in bounds(model, at)), "taken": [takes(one) for one in json.load(sys.stdin)]}
with os.fdopen(out, "w") as file:
    json.dump(said, file)
`;

/** The section is refused by name (src/spec/deepspeedRefuse.ts), whatever is in it. */
const REFUSED = /^zero_optimization\.zenflow\./;
const VALUES = [-5, -1, 0, 0.5, 1, 2];

const bounded = boundsOf(DEEPSPEED_KEYS);
/** Each bounded key with each value, one key a config. */
const configs = Object.keys(bounded).flatMap((path) => VALUES.map((value) => configOf(path.split('.'), value)));
let said: { readonly bounds: Readonly<Record<string, string>>; readonly taken: readonly boolean[] };

beforeAll(async () => {
  const { stdout } = await execa(resolvePython(), ['-c', ASK], { input: JSON.stringify(configs), stderr: 'ignore' });
  said = JSON.parse(stdout) as typeof said;
}, 120_000);

it('keys have the bounds of the fields, and none beside', () => {
  const theirs = Object.entries(said.bounds).filter(([path]) => !REFUSED.test(path));
  expect(bounded).toEqual(Object.fromEntries(theirs));
  expect(theirs.length).toBeGreaterThan(20);
});

it('a value is refused where DeepSpeed would refuse it when the ranks have started', () => {
  const ours = configs.map((config) => !isRefused(config));
  expect(configs.filter((_, i) => ours[i] !== said.taken[i])).toEqual([]);
  expect(said.taken).toContain(false);
  expect(said.taken).toContain(true);
});

function boundsOf(table: KeyTable, at = ''): Readonly<Record<string, string>> {
  const entries = Object.entries(table).flatMap(([key, type]): readonly (readonly [string, string])[] => {
    if (typeof type !== 'string') return Object.entries(boundsOf(type, `${at}${key}.`));
    const [, bounds] = /^\w+ (.*)$/.exec(type) ?? [];
    return bounds === undefined ? [] : [[`${at}${key}`, bounds]];
  });
  return Object.fromEntries(entries);
}

function configOf([key = '', ...rest]: readonly string[], value: number): JsonObject {
  return { [key]: rest.length === 0 ? value : configOf(rest, value) };
}

function isRefused(config: JsonObject): boolean {
  try {
    return !isObject(checkKeys(config));
  } catch {
    return true;
  }
}
