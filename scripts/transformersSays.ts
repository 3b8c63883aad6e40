/** What transformers makes of configs, in another process: the number of parameters on the meta device, and the config written out. */
import { execa } from 'execa';
import { PYTHON_FOLDER, resolvePython } from '../src/bridge/python.js';
import type { JsonObject } from '../src/spec/parseJson.js';

export interface Said {
  readonly numParameters?: number;
  /** The config with all defaults, as transformers would save it. */
  readonly saved?: JsonObject;
  /** Where transformers does not build the model. */
  readonly error?: string;
}

const ASK = `
import json, os, sys
from fpdt.models.config import config_of
from fpdt.models.shapes import parameter_shapes
out = os.dup(1)
os.dup2(2, 1)
def say(config):
    try:
        saved = json.loads(config_of(config).to_json_string(use_diff=False))
        return {"numParameters": parameter_shapes(config)["numParameters"], "saved": saved}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}
said = [say(config) for config in json.load(sys.stdin)]
with os.fdopen(out, "w") as file:
    json.dump(said, file)
`;

export async function transformersSays(configs: readonly JsonObject[]): Promise<readonly Said[]> {
  const env = { PYTHONPATH: PYTHON_FOLDER, TRANSFORMERS_VERBOSITY: 'critical' };
  const { stdout } = await execa(resolvePython(), ['-c', ASK], { input: JSON.stringify(configs), env, stderr: 'ignore' });
  return JSON.parse(stdout) as Said[];
}
