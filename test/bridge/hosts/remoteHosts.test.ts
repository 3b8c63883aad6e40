/** The controller's side of other hosts, with agents that are not what they should be. */
import { curveKeyPair, Dealer } from 'zeromq';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { AgentLink } from '../../../src/bridge/hosts/agentLink.js';
import type { Ticket } from '../../../src/bridge/hosts/agentMessages.js';
import { openRemoteHosts } from '../../../src/bridge/hosts/remoteHosts.js';
import { decodeZ85 } from '../../../src/bridge/hosts/zap.js';
import { VERSION } from '../../../src/package.js';
import { PATIENCE_MS } from '../patience.js';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const HELLO = {
  ...{ type: 'hello', version: VERSION, node: 0, host: 'one', pid: 1, address: '127.0.0.1', port: 9 },
  ...{ numProcessors: 1, numGpus: null },
};

describe('an agent', { timeout: PATIENCE_MS }, () => {
  test('with another key is refused', async () => {
    const listener = { onMessage: vi.fn(), onRemark: vi.fn(), onCrash: vi.fn() };
    const link = await AgentLink.open(['127.0.0.1', '127.0.0.1', '127.0.0.2'], listener);
    closers.push(() => link.close());
    const [endpoint, other] = [link.endpoint('127.0.0.1'), link.endpoint('127.0.0.2')];
    expect([endpoint, other]).toEqual([
      expect.stringMatching(/^tcp:\/\/127\.0\.0\.1:\d+$/),
      expect.stringMatching(/^tcp:\/\/127\.0\.0\.2:\d+$/),
    ]);
    const stranger = connect({ endpoint, ...link.keys, ...curveKeyPair() });
    const refused = vi.fn();
    stranger.events.on('handshake:error:auth', refused);
    await vi.waitUntil(() => refused.mock.calls.length > 0 && listener.onRemark.mock.calls.length > 0, { timeout: PATIENCE_MS });
    expect(listener.onRemark).toHaveBeenCalledWith('refused a connection with another key');
    await connect({ endpoint: other, ...link.keys }).send(JSON.stringify(HELLO));
    await vi.waitUntil(() => listener.onMessage.mock.calls.length === 1, { timeout: PATIENCE_MS });
    expect(listener.onMessage).toHaveBeenCalledWith(0, HELLO, []);
  });

  test.each([
    [{ version: '0.0.1' }, { code: 'version-mismatch', message: `one has fpdt 0.0.1, this host ${VERSION}` }],
    [{ numProcessors: 0 }, { code: 'too-many-ranks', message: '1 ranks are more than one takes: 0, 8 for each of its 0 processors' }],
  ])('that says %j ends the start', async (changes, error) => {
    const nodes = [{ host: 'one', firstRank: 0, numRanks: 1, slots: null }];
    const start = ([ticket]: readonly Ticket[]): [] => {
      if (ticket !== undefined) void connect(ticket).send(JSON.stringify({ ...HELLO, ...changes }));
      return [];
    };
    const remote = { nodes, addresses: ['127.0.0.1'], python: null, exported: {}, start };
    const setup = { run: 'run_1', numRanks: 1, device: 'cpu', python: 'python3', worker: 'none', environment: {} } as const;
    const listener = {
      onControl: vi.fn(),
      onTelemetry: vi.fn(),
      onCrash: vi.fn(),
      onLine: vi.fn(),
      onRemark: vi.fn(),
      onHostLost: vi.fn(),
    };
    await expect(openRemoteHosts(remote, setup, listener)).rejects.toMatchObject(error);
  });

  test('has keys in Z85', () => {
    // The example of RFC 32 of ZeroMQ.
    expect(decodeZ85('HelloWorld').toString('hex')).toBe('864fd26fb559f75b');
  });
});

function connect(ticket: Pick<Ticket, 'endpoint' | 'serverKey' | 'publicKey' | 'secretKey'>): Dealer {
  const { endpoint, serverKey, publicKey, secretKey } = ticket;
  const keys = { curveServerKey: serverKey, curvePublicKey: publicKey, curveSecretKey: secretKey };
  const dealer = new Dealer({ routingId: 'node/0', linger: 0, ...keys });
  closers.unshift(() => dealer.close());
  dealer.connect(endpoint);
  return dealer;
}
