/** Hostfiles and filters as DeepSpeed reads them, and every way in which they are wrong. */
import { expect, describe, test } from 'vitest';
import { filterHosts, parseHostfile } from '../../../src/bridge/hosts/hostfile.js';
import { placeRanks } from '../../../src/bridge/hosts/placement.js';

const HOSTS = parseHostfile('# two hosts\nworker-0 slots=4\n\n  worker-1   slots=2 # gpus\n', 'hosts');

describe('a hostfile', () => {
  test('names hosts with their slots', () => {
    expect(HOSTS).toEqual([
      { host: 'worker-0', slots: [0, 1, 2, 3] },
      { host: 'worker-1', slots: [0, 1] },
    ]);
  });

  test.each([
    ['worker-0', "hosts:1: 'worker-0' names no host with its slots"],
    ['worker-0 slots=4\nworker-1 slots = 4', "hosts:2: 'worker-1 slots = 4' names no host with its slots"],
    ['worker-0 slots=4\nworker-0 slots=2', 'hosts:2: worker-0 stands there twice'],
    ['-oProxyCommand=x slots=4', "hosts:1: '-oProxyCommand=x' is no name of a host"],
    ['worker-0 slots=9999999999', 'hosts:1: worker-0 with 9999999999 slots'],
    ['# none\n', 'hosts names no host'],
  ])('%j is refused', (text, message) => {
    expect(() => parseHostfile(text, 'hosts')).toThrow(expect.objectContaining({ code: 'hostfile', message }));
  });
});

describe('filters', () => {
  test.each([
    ['worker-1', undefined, [['worker-1', [0, 1]]]],
    [
      'worker-1:1@worker-0:0,2',
      undefined,
      [
        ['worker-0', [0, 2]],
        ['worker-1', [1]],
      ],
    ],
    ['worker-0:3@worker-0:1', undefined, [['worker-0', [1, 3]]]],
    [undefined, 'worker-0', [['worker-1', [0, 1]]]],
    [undefined, 'worker-0:0,1,2,3@worker-1:0', [['worker-1', [1]]]],
    [
      undefined,
      undefined,
      [
        ['worker-0', [0, 1, 2, 3]],
        ['worker-1', [0, 1]],
      ],
    ],
  ] as const)('--include %s --exclude %s', (include, exclude, expected) => {
    expect(filterHosts(HOSTS, include, exclude).map(({ host, slots }) => [host, slots])).toEqual(expected);
  });

  test.each([
    ['worker-2', undefined, "--include: there is no host 'worker-2' in the hostfile"],
    ['', undefined, "--include: there is no host '' in the hostfile"],
    ['worker-0:1:2', undefined, "--include: there is no host 'worker-0' in the hostfile"],
    ['worker-1:2', undefined, "--include: worker-1 has no slot '2'"],
    ['worker-1:a', undefined, "--include: worker-1 has no slot 'a'"],
    [undefined, 'worker-0@worker-1', '--exclude worker-0@worker-1 leaves no slot'],
    ['worker-0', 'worker-1', '--include and --exclude are both given'],
  ])('--include %s --exclude %s is refused', (include, exclude, message) => {
    expect(() => filterHosts(HOSTS, include, exclude)).toThrow(expect.objectContaining({ message }));
  });
});

describe('ranks', () => {
  test('are placed as the plan has them, node by node', () => {
    expect(placeRanks({ numRanks: 3, ranksPerNode: 2 }, HOSTS)).toEqual([
      { host: 'worker-0', firstRank: 0, numRanks: 2, slots: null },
      { host: 'worker-1', firstRank: 2, numRanks: 1, slots: null },
    ]);
    const some = filterHosts(HOSTS, 'worker-0:1,3', undefined);
    expect(placeRanks({ numRanks: 2, ranksPerNode: 2 }, some)).toMatchObject([{ slots: [1, 3] }]);
  });

  test('that do not fit are refused with what would', () => {
    expect(() => placeRanks({ numRanks: 8, ranksPerNode: 4 }, HOSTS)).toThrow(
      expect.objectContaining({ code: 'too-few-slots', hint: expect.stringContaining('--ranks-per-node 2') }),
    );
    expect(() => placeRanks({ numRanks: 1000, ranksPerNode: 2 }, HOSTS)).toThrow(
      expect.objectContaining({ code: 'too-few-hosts', message: 'the plan has 1000 ranks, 2 on a host: 500 hosts, there are 2' }),
    );
  });
});
