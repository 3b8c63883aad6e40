/** Who may connect: CURVE encrypts for anybody who knows the server's public key; that it is one of ours, ZAP has to say (RFC 27 of ZeroMQ). */

import { type Context, Reply } from 'zeromq';

export const ZAP_DOMAIN = 'fpdt';
const ENDPOINT = 'inproc://zeromq.zap.01';
const Z85 = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#';

/** Answers libzmq of this context; to be opened before its sockets are bound. Returns what ends it. */
export async function admitOnly(context: Context, publicKey: string): Promise<() => Promise<void>> {
  const reply = new Reply({ context, linger: 0 });
  await reply.bind(ENDPOINT);
  const allowed = decodeZ85(publicKey);
  const answering = (async () => {
    for await (const [version, id, , , , mechanism, credentials] of reply) {
      const isOurs = mechanism?.toString() === 'CURVE' && credentials !== undefined && credentials.equals(allowed);
      const [code, text] = isOurs ? ['200', 'OK'] : ['400', 'another key'];
      await reply.send([version ?? '', id ?? '', code, text, '', '']);
    }
  })();
  return async () => {
    reply.close();
    await answering;
  };
}

/** 32 bytes of a key: four bytes, most significant first, in five digits (RFC 32 of ZeroMQ). */
export function decodeZ85(text: string): Buffer {
  const bytes = Buffer.alloc((text.length / 5) * 4);
  for (let at = 0; at < text.length; at += 5) {
    const value = text
      .slice(at, at + 5)
      .split('')
      .reduce((sum, digit) => sum * 85 + Z85.indexOf(digit), 0);
    bytes.writeUInt32BE(value, (at / 5) * 4);
  }
  return bytes;
}
