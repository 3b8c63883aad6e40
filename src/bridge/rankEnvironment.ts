/** The environment variables a rank is started with. */

import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { delimiter } from 'node:path';
import { PYTHON_FOLDER } from './python.js';

/** Where ranks of one host meet. */
export const LOCALHOST = '127.0.0.1';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface RankPlace {
  readonly rank: number;
  readonly numRanks: number;
  /** Among the ranks of its host. */
  readonly localRank: number;
  readonly device: 'cpu' | 'cuda';
  readonly masterAddress: string;
  readonly masterPort: number;
}

/** `base` is that of the process that starts the rank, which a rank does not outlive. */
export function rankEnvironment(place: RankPlace, base: Environment): Environment {
  const { rank, localRank, numRanks, device, masterAddress, masterPort } = place;
  return {
    ...(device === 'cpu' ? { OMP_NUM_THREADS: '1', DS_ACCELERATOR: 'cpu' } : {}),
    ...base,
    RANK: String(rank),
    LOCAL_RANK: String(localRank),
    WORLD_SIZE: String(numRanks),
    MASTER_ADDR: masterAddress,
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
export async function freePort(address = LOCALHOST): Promise<number> {
  const server = createServer();
  server.listen(0, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
