/** Calls to the worker that holds the model. */

import type { Failure, FromWorker, Request, Results, ToWorker } from "../worker/protocol";

export interface Listeners {
  progress?: (stage: string, done: number, total: number) => void;
  piece?: (text: string, tokens: number) => void;
}

/** What went wrong, in words for a person. */
export class CallError extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message);
  }
}

interface Waiting {
  listeners: Listeners;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
}

export class Client {
  /** Bytes of WebAssembly memory after the last call. */
  memory = 0;
  private readonly worker = new Worker(new URL("../worker/worker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private calls = 0;

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.receive(data);
    this.worker.onerror = (event) => this.fail(event.message || "the worker could not be started");
  }

  call<K extends Request["kind"]>(
    request: Request & { kind: K },
    listeners: Listeners = {},
  ): { done: Promise<Results[K]>; cancel: () => void } {
    const call = ++this.calls;
    const done = new Promise<Results[K]>((resolve, reject) => this.waiting.set(call, { listeners, resolve, reject }));
    this.send({ call, request });
    return { done, cancel: () => this.send({ cancel: call }) };
  }

  private send(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private receive(message: FromWorker): void {
    const waiting = this.waiting.get(message.call);
    if (!waiting) return;
    if ("stage" in message) waiting.listeners.progress?.(message.stage, message.done, message.total);
    else if ("piece" in message) waiting.listeners.piece?.(message.piece, message.tokens);
    else {
      this.waiting.delete(message.call);
      if ("error" in message) waiting.reject(new CallError(message.error));
      else {
        this.memory = message.memory;
        waiting.resolve(message.result as never);
      }
    }
  }

  private fail(reason: string): void {
    for (const { reject } of this.waiting.values()) reject(new CallError({ kind: "Error", message: reason }));
    this.waiting.clear();
  }
}
