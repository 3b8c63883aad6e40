import { statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Dealer, Push } from 'zeromq';
import { afterEach, expect, test, vi } from 'vitest';
import { Controller } from '../../src/bridge/controller.js';
import { makeMessage, PROTOCOL_VERSION } from '../../src/bridge/protocol.js';
import { resolvePython } from '../../src/bridge/python.js';
import { checkEndpoint, RankSockets } from '../../src/bridge/rankSockets.js';
import { makeFolder } from './folder.js';
import { freePort, rankEnvironment } from '../../src/bridge/rankEnvironment.js';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

test('tcp is refused', () => {
  expect(() => checkEndpoint('tcp://0.0.0.0:5555')).toThrow(expect.objectContaining({ code: 'endpoint-refused' }));
});

test('the sockets are in a folder that only this user can enter, and are gone after close', async () => {
  const { controller, sockets } = await open();
  const folder = dirname(sockets.controlEndpoint.slice('ipc://'.length));
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  await controller.close();
  expect(() => statSync(folder)).toThrow('ENOENT');
});

test('messages are passed on once', async () => {
  const { sockets, listener } = await open();
  const rank = connect(sockets, 'run_1/1/0');
  const frame = JSON.stringify(makeMessage({ run: 'run_1', rank: 1, incarnation: 0 }, 'bye', { numSteps: 1 }, 0));
  for (const one of [frame, frame]) await rank.send(one);
  await rank.send(JSON.stringify(makeMessage({ run: 'run_1', rank: 1, incarnation: 0 }, 'bye', { numSteps: 2 }, 1)));
  await vi.waitUntil(() => listener.onMessage.mock.calls.length === 2);
  expect(listener.onMessage.mock.calls.map(([, message]) => message.body)).toEqual([{ numSteps: 1 }, { numSteps: 2 }]);
});

test('an older protocol, a wrong sender and rubbish break the rank; strangers and newer types are only remarked', async () => {
  const { sockets, listener } = await open();
  const rank = connect(sockets, 'run_1/0/0');
  const hello = makeMessage({ run: 'run_1', rank: 0, incarnation: 0 }, 'bye', { numSteps: 1 }, 0);
  for (const bad of [
    { ...hello, v: 0 },
    { ...hello, rank: 5 },
    { ...hello, extra: 1 },
  ])
    await rank.send(JSON.stringify(bad));
  await rank.send('rubbish');
  await rank.send(JSON.stringify({ ...hello, type: 'newer' }));
  await connect(sockets, 'other_run/0/0').send(JSON.stringify(hello));
  await vi.waitUntil(() => listener.onBroken.mock.calls.length === 4 && listener.onRemark.mock.calls.length === 2);
  expect(listener.onBroken.mock.calls.map(([who]) => who)).toEqual([0, 0, 0, 0]);
  expect(listener.onMessage).not.toHaveBeenCalled();
});

test('a message to a rank that is not connected is remarked', async () => {
  const { controller, listener } = await open();
  controller.send(3, 'ping', { stacks: false });
  await vi.waitUntil(() => listener.onRemark.mock.calls.length === 1);
  expect(listener.onRemark).toHaveBeenCalledWith('rank 3 is not connected, ping was not sent');
});

test('many messages at once arrive in order with their frames', async () => {
  const { controller, sockets, listener } = await open();
  const rank = connect(sockets, 'run_1/0/0');
  await rank.send(JSON.stringify(makeMessage({ run: 'run_1', rank: 0, incarnation: 0 }, 'bye', { numSteps: 0 }, 0)));
  await vi.waitUntil(() => listener.onMessage.mock.calls.length === 1);
  for (let i = 0; i < 500; i += 1) controller.send(0, 'ping', { stacks: false }, [new Uint8Array([i % 256])]);
  for (let i = 0; i < 500; i += 1) {
    const [head, frame] = await rank.receive();
    expect((JSON.parse(String(head)) as { seq: number }).seq).toBe(i);
    expect(frame?.[0]).toBe(i % 256);
  }
});

test('malformed telemetry is remarked, telemetry of another run is ignored', async () => {
  const { sockets, listener } = await open();
  const push = new Push({ linger: 0 });
  closers.unshift(() => push.close());
  push.connect(sockets.telemetryEndpoint);
  const batch = { v: PROTOCOL_VERSION, run: 'run_1', rank: 0, incarnation: 0, seq: 0, dropped: 0, records: [] };
  for (const one of [{ ...batch, run: 'other' }, { ...batch, seq: -1 }, batch]) await push.send(JSON.stringify(one));
  await vi.waitUntil(() => listener.onBatch.mock.calls.length === 1);
  expect(listener.onRemark).toHaveBeenCalledTimes(2);
});

test('a listener that throws is reported', async () => {
  const { sockets, listener } = await open();
  const bug = new Error('a bug');
  listener.onMessage.mockImplementation(() => {
    throw bug;
  });
  await connect(sockets, 'run_1/0/0').send(
    JSON.stringify(makeMessage({ run: 'run_1', rank: 0, incarnation: 0 }, 'bye', { numSteps: 0 }, 0)),
  );
  await vi.waitUntil(() => listener.onCrash.mock.calls.length === 1);
  expect(listener.onCrash).toHaveBeenCalledWith(bug);
});

test('ranks get their place, this package on PYTHONPATH, and CPU defaults that the user can override', () => {
  const place = { rank: 5, localRank: 1, numRanks: 8, device: 'cpu', masterAddress: '10.0.0.1', masterPort: 1234 } as const;
  expect(rankEnvironment(place, { PYTHONPATH: '/mine', RANK: '9' })).toMatchObject({
    RANK: '5',
    LOCAL_RANK: '1',
    WORLD_SIZE: '8',
    MASTER_ADDR: '10.0.0.1',
    MASTER_PORT: '1234',
    OMP_NUM_THREADS: '1',
    DS_ACCELERATOR: 'cpu',
    PYTHONPATH: expect.stringMatching(/python:\/mine$/),
  });
  expect(rankEnvironment(place, { OMP_NUM_THREADS: '8' }).OMP_NUM_THREADS).toBe('8');
  expect(rankEnvironment({ ...place, device: 'cuda' }, {}).DS_ACCELERATOR).toBeUndefined();
});

test('a free port is a port', async () => {
  expect(await freePort()).toBeGreaterThan(0);
});

test('the interpreter is the one asked for, or an error that names setup', async () => {
  const folder = await makeFolder();
  expect(resolvePython('python3', {})).toBe('python3');
  expect(resolvePython(process.execPath, { FPDT_PYTHON: 'other' })).toBe(process.execPath);
  expect(resolvePython(undefined, { FPDT_PYTHON: 'python3.11' })).toBe('python3.11');
  expect(() => resolvePython(undefined, { FPDT_PYTHON: join(folder, 'python') })).toThrow(
    expect.objectContaining({ code: 'python-not-found', hint: expect.stringContaining('npx fpdt setup') }),
  );
});

async function open() {
  const listener = { onMessage: vi.fn(), onBatch: vi.fn(), onRemark: vi.fn(), onBroken: vi.fn(), onCrash: vi.fn() };
  const controller = new Controller('run_1', listener);
  const sockets = await RankSockets.open(controller);
  controller.attach(sockets);
  closers.push(() => controller.close());
  return { controller, sockets, listener };
}

function connect(sockets: RankSockets, routingId: string): Dealer {
  const dealer = new Dealer({ routingId, linger: 0 });
  closers.unshift(() => dealer.close());
  dealer.connect(sockets.controlEndpoint);
  return dealer;
}
