/** The environment variables a rank is started with. */

import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { delimiter } from 'node:path';
import { PYTHON_FOLDER } from './python.js';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface RankPlace {
  readonly rank: number;
  readonly numRanks: number;
  readonly device: 'cpu' | 'cuda';
  readonly masterPort: number;
}

/** All ranks run on this host, so the local rank is the rank. `base` is the controller's own environment. */
export function rankEnvironment({ rank, numRanks, device, masterPort }: RankPlace, base: Environment): Environment {
  return {
    ...(device === 'cpu' ? { OMP_NUM_THREADS: '1', DS_ACCELERATOR: 'cpu' } : {}),
    ...base,
    RANK: String(rank),
    LOCAL_RANK: String(rank),
    WORLD_SIZE: String(numRanks),
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(masterPort),
    ...prepareEnvironment({ PYTHONPATH: base.PYTHONPATH }),
  };
}

/** Of any Python process that ends with this one. */
export function prepareEnvironment(base: Environment): Environment {
  return {
    ...base,
    FPDT_CONTROLLER_PID: String(process.pid),
    PYTHONPATH: [PYTHON_FOLDER, base.PYTHONPATH].filter((one) => one !== undefined && one !== '').join(delimiter),
    PYTHONUNBUFFERED: '1',
  };
}

/** A port that was free a moment ago; torch's rendezvous cannot tell us one that it chose itself before it starts. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
