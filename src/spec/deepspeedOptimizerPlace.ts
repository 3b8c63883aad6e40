/** Whether DeepSpeed updates weights on the host: with the states there, or on a disk (`zero_use_cpu_optimizer`, runtime/engine.py). */
import { type JsonObject, valueIn } from './parseJson.js';

export function isOptimizerOnHost(config: JsonObject): boolean {
  return ['cpu', 'nvme'].includes(String(valueIn(config, ['zero_optimization', 'offload_optimizer', 'device'])));
}
