/** Holds the model, away from the page, so that the page stays responsive and an answer can be cancelled. */

import * as ort from "onnxruntime-web/wasm";
import glueUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { OrtBackend } from "../backend-ort";
import { openBundle, type Bundle, type BundleSource } from "../core/bundle";
import { Cancelled, reasonOf, SatchelError, throwIfCancelled, usageError } from "../core/errors";
import { Session } from "../core/generate";
import { checkParity } from "../core/parity";
import { noteMemories, wasmBytes } from "./memory";
import type { Answered, Failure, FromWorker, Loaded, Place, Request, Results, ToWorker } from "./protocol";
import { FileSource, UrlSource } from "./sources";
import { forgetStored, Keeper, listStored, openStored } from "./storage";

noteMemories();
const RUNTIME = `onnxruntime-web ${ort.env.versions.web ?? ""}`;
const MOST_THREADS = 4; // decoding is bound by memory: more gain little, and slow down the page's own machine
ort.env.wasm.wasmPaths = { mjs: new URL(glueUrl, self.location.href).href, wasm: new URL(wasmUrl, self.location.href).href };
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;

let session: Session | null = null;
let loadSeconds = 0;
const running = new Map<number, AbortController>();
let queue: Promise<void> = Promise.resolve(); // there is one model with one cache: calls that use it wait for each other

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if ("cancel" in data) running.get(data.cancel)?.abort();
  else {
    const { call, request } = data;
    const abort = new AbortController();
    running.set(call, abort);
    const start = () => serve(call, request, abort.signal);
    if (request.kind === "list" || request.kind === "forget") void start();
    else queue = queue.then(start);
  }
};

async function serve(call: number, request: Request, signal: AbortSignal): Promise<void> {
  try {
    throwIfCancelled(signal);
    send({ call, result: await answer(call, request, signal), memory: wasmBytes() });
  } catch (error) {
    send({ call, error: failure(error) });
  } finally {
    running.delete(call);
  }
}

function answer(call: number, request: Request, signal: AbortSignal): Promise<Results[keyof Results]> {
  switch (request.kind) {
    case "open":
      return open(call, request.place, request.keep, signal);
    case "chat":
      return chat(call, request, signal);
    case "parity":
      return parity(call, request, signal);
    case "list":
      return listStored();
    case "forget":
      return forgetStored(request.id).then(() => null);
  }
}

async function open(call: number, place: Place, keep: boolean, signal: AbortSignal): Promise<Loaded> {
  const stored = place.kind === "stored";
  const { bundle, notKept } = await verified(call, await sourceOf(place), keep && !stored, signal);
  throwIfCancelled(signal);
  send({ call, stage: "Starting the model", done: 0, total: 0 });
  await session?.backend.close();
  session = null;
  const start = performance.now();
  const backend = await OrtBackend.open(ort, bundle);
  session = await Session.open(bundle, backend, nextTask);
  loadSeconds = (performance.now() - start) / 1000;
  return summary(bundle, notKept);
}

async function verified(
  call: number,
  source: BundleSource,
  keep: boolean,
  signal: AbortSignal,
): Promise<{ bundle: Bundle; notKept: string }> {
  let keeper = keep ? new Keeper() : null;
  let notKept = "";
  const giveUp = async (error: unknown) => {
    notKept = reasonOf(error);
    await keeper?.abandon();
    keeper = null;
  };
  const progress = (done: number, total: number) => send({ call, stage: "Fetching and checking", done, total });
  try {
    const onFile = async ({ path }: { path: string }, bytes: Uint8Array<ArrayBuffer>) => {
      await keeper?.put(path, bytes).catch(giveUp); // too little room for it is no reason not to chat
    };
    const bundle = await openBundle(source, { progress, onFile, signal });
    await keeper?.finish(bundle.id, source.name, bundle.manifestBytes).catch(giveUp);
    return { bundle, notKept };
  } catch (error) {
    await keeper?.abandon();
    throw error;
  }
}

async function chat(call: number, request: Request & { kind: "chat" }, signal: AbortSignal): Promise<Answered> {
  const { messages, options } = request;
  const answered: Answered = { reason: "", promptTokens: 0, tokens: 0, prefillSeconds: 0, decodeSeconds: 0 };
  let last = performance.now();
  const onPrefill = (done: number, total: number) => {
    answered.promptTokens = total;
    send({ call, stage: "Reading", done, total });
  };
  for await (const { text, tokens } of loaded().chat(messages, { ...options, signal, onPrefill })) {
    const [now, first] = [performance.now(), answered.tokens === 0];
    answered[first ? "prefillSeconds" : "decodeSeconds"] += (now - last) / 1000;
    last = now;
    answered.tokens += tokens;
    send({ call, piece: text, tokens });
  }
  return { ...answered, reason: loaded().finishReason };
}

async function parity(call: number, request: Request & { kind: "parity" }, signal: AbortSignal): Promise<Results["parity"]> {
  const { bundle, backend } = loaded();
  const progress = (done: number, total: number) => send({ call, stage: "Replaying golden prompts", done, total });
  const host = { ...request.host, runtime: RUNTIME, threads: ort.env.wasm.numThreads ?? 1 };
  const prompts = request.prompts === undefined ? {} : { prompts: request.prompts };
  try {
    return await checkParity(bundle, backend, host, loadSeconds, { progress, signal, pause: nextTask, ...prompts });
  } finally {
    loaded().forget(); // what the cache holds now is of no conversation
  }
}

function summary(bundle: Bundle, notKept: string): Loaded {
  const { model, plan, weights, entry, generation } = bundle.manifest;
  return {
    id: bundle.id, model: model.model_id, device: plan.device, weights: weights.scheme, license: model.license,
    bytes: bundle.bytes, contextLength: entry.context_length, hasTemplate: bundle.has("chat_template.jinja"),
    defaults: {
      maxNewTokens: generation.max_new_tokens, temperature: generation.temperature,
      topK: generation.top_k, topP: generation.top_p,
    },
    runtime: RUNTIME, threads: ort.env.wasm.numThreads ?? 1, loadSeconds, notKept,
  };
}

async function sourceOf(place: Place): Promise<BundleSource> {
  if (place.kind === "url") return new UrlSource(place.url);
  return place.kind === "files" ? new FileSource(place.name, place.files) : openStored(place.id);
}

function loaded(): Session {
  if (!session) throw usageError("no bundle is open", { hint: "open one first" });
  return session;
}

function failure(error: unknown): Failure {
  if (error instanceof SatchelError) return { kind: error.kind, message: error.message };
  if (error instanceof Cancelled || (error instanceof Error && error.name === "AbortError")) {
    return { kind: "Cancelled", message: "Cancelled." };
  }
  return { kind: "Error", message: reasonOf(error) };
}

/** Resolves in a task of its own, before which messages are delivered; a timer would wait for 4 ms. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

function send(message: FromWorker): void {
  self.postMessage(message);
}
