/** What the page and its worker say to each other. */

import type { ErrorKind } from "../core/errors";
import type { GenerateOptions, FinishReason } from "../core/generate";
import type { Host, ParityReport } from "../core/parity";
import type { Message } from "../core/template";

/** Where a bundle is: on a server, in files that a person has picked, or in this browser's storage. */
export type Place =
  | { kind: "url"; url: string }
  | { kind: "files"; name: string; files: [path: string, file: File][] }
  | { kind: "stored"; id: string };

export type Request =
  | { kind: "open"; place: Place; keep: boolean }
  | { kind: "chat"; messages: Message[]; options: Omit<GenerateOptions, "signal" | "onPrefill"> }
  | { kind: "parity"; host: Omit<Host, "runtime" | "threads">; prompts?: number }
  | { kind: "list" }
  | { kind: "forget"; id: string };

export interface StoredBundle {
  id: string;
  name: string;
  bytes: number;
}

/** What the page shows of a loaded bundle. */
export interface Loaded {
  id: string;
  model: string;
  device: string;
  weights: string;
  license: string;
  bytes: number;
  contextLength: number;
  defaults: { maxNewTokens: number; temperature: number; topK: number; topP: number };
  hasTemplate: boolean;
  runtime: string;
  threads: number;
  loadSeconds: number;
  /** Why the bundle was not kept for use offline; "" where it was, or was not to be. */
  notKept: string;
}

export interface Answered {
  reason: FinishReason | "";
  promptTokens: number;
  tokens: number;
  prefillSeconds: number;
  decodeSeconds: number;
}

export interface Results {
  open: Loaded;
  chat: Answered;
  parity: ParityReport;
  list: StoredBundle[];
  forget: null;
}

/** To the worker; `cancel` names the call to end. */
export type ToWorker = { call: number; request: Request } | { cancel: number };

export type FromWorker =
  | { call: number; stage: string; done: number; total: number }
  | { call: number; piece: string; tokens: number }
  | { call: number; result: Results[keyof Results]; memory: number }
  | { call: number; error: Failure };

export interface Failure {
  kind: ErrorKind | "Cancelled" | "Error";
  message: string;
}
