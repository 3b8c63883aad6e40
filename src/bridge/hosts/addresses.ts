/** Addresses by which hosts reach each other. */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { lookup } from 'node:dns/promises';
import { hostname, networkInterfaces } from 'node:os';

/** Any: nothing is sent there. */
const PORT = 9;

/** The address of this host that a packet to `host` would come from; null where no route leads there, or nobody knows the name. */
export async function addressTowards(host: string): Promise<string | null> {
  const socket = createSocket('udp4');
  try {
    const connected = once(socket, 'connect');
    socket.connect(PORT, host);
    await connected;
    return socket.address().address;
  } catch {
    return null; // Whoever asked says what to do without.
  } finally {
    socket.close();
  }
}

/** The address of this host for others: of its name, or of its first interface where that is the loopback, as on Debian. */
export async function ownAddress(): Promise<string> {
  const named = await lookup(hostname(), 4).catch(() => null);
  if (named !== null && !isLoopback(named.address)) return named.address;
  const all = Object.values(networkInterfaces()).flatMap((interfaces) => interfaces ?? []);
  return all.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? named?.address ?? '127.0.0.1';
}

export function isLoopback(address: string): boolean {
  return address.startsWith('127.');
}

/** Undefined where no interface has it. */
export function interfaceOf(address: string): string | undefined {
  return Object.entries(networkInterfaces()).find(([, all]) => all?.some((one) => one.address === address))?.[0];
}
