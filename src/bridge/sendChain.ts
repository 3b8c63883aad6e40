/** A socket takes one send at a time: these follow each other. */
export class SendChain {
  #last: Promise<void> = Promise.resolve();
  #numWaiting = 0;

  /** How many have not been taken by the socket. */
  get numWaiting(): number {
    return this.#numWaiting;
  }

  /** `send` must not throw. */
  add(send: () => Promise<void>): void {
    this.#numWaiting += 1;
    this.#last = this.#last.then(send).finally(() => (this.#numWaiting -= 1));
  }

  async done(): Promise<void> {
    await this.#last;
  }
}
