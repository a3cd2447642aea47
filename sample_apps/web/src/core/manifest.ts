/** manifest.json, as runtime/FORMAT.md describes it; runtime/manifest.py is its twin. */

import { bundleError } from "./errors";
import { anything, dictionary, either, flag, integer, list, number, object, oneOf, orNull, record, text } from "./schema";
import { parseJson, type Json } from "./strict-json";

export const SCHEMA_VERSION = 1;

export interface TensorSpec {
  name: string;
  /** A string names a dynamic dimension. */
  shape: (number | string)[];
  dtype: string;
}

export interface FileEntry {
  path: string;
  bytes: number;
  sha256: string;
}

export interface ModelEntry {
  format: "coreml" | "onnx" | "executorch";
  path: string;
  context_length: number;
  prefill_length: number;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
  states: TensorSpec[];
  options: { [key: string]: Json };
  chunks?: Json;
  vision?: Json;
}

export interface TokenRules {
  vocab_size: number;
  bos_id: number | null;
  prepend_bos: boolean;
  stop_ids: number[];
}

export interface GenerationDefaults {
  max_new_tokens: number;
  temperature: number;
  top_k: number;
  top_p: number;
}

const tensor = record<TensorSpec>({
  name: text,
  shape: list(either<number, string>((v) => typeof v === "number", integer, text)),
  dtype: text,
});

const model = record({
  model_id: text, family: text, author: text, license: text, license_text: text, source: text, parameters: integer,
});

const rejection = record({ value: text, reason: text, source: text });

const choice = record({
  role: text,
  value: text,
  reason: text,
  source: text,
  rejected: list(either((v) => typeof v === "string", text, rejection)),
});

const plan = record({
  device: text,
  format: oneOf("coreml", "onnx", "executorch"),
  context_length: integer,
  prefill_length: integer,
  choices: list(choice),
});

const entry = record<ModelEntry>(
  {
    format: oneOf("coreml", "onnx", "executorch"),
    path: text,
    context_length: integer,
    prefill_length: integer,
    inputs: list(tensor),
    outputs: list(tensor),
    states: list(tensor),
    options: object,
    chunks: anything, // of Core ML alone, which no browser runs
    vision: anything, // of models that see; backend-ort.ts refuses them
  },
  ["chunks", "vision"],
);

const selection = record({
  budget: text, average_bits: number, expected_kl: number, correction: number, counts: dictionary(integer),
});

const weights = record({ scheme: text, tensors: dictionary(text), selection }, ["selection"]);

const tokens = record<TokenRules>({
  vocab_size: integer, bos_id: orNull(integer), prepend_bos: flag, stop_ids: list(integer),
});

const generation = record<GenerationDefaults>({
  max_new_tokens: integer, temperature: number, top_k: integer, top_p: number,
});

const file = record<FileEntry>({ path: text, bytes: integer, sha256: text });

const manifest = record(
  {
    schema_version: integer, model, plan, entry, weights, tokens, generation,
    tools: dictionary(text), files: list(file), also_for: list(text),
  },
  ["also_for"],
);

export type Manifest = Omit<ReturnType<typeof manifest>, "also_for"> & { also_for?: string[] };

/** Bytes of manifest.json -> its content. Throws a BundleError: of another schema, or not exactly as FORMAT.md says. */
export function readManifest(bytes: Uint8Array): Manifest {
  const value = parseJson(bytes, "manifest.json");
  const version = object(value, "manifest.json").schema_version ?? null;
  if (version !== SCHEMA_VERSION) {
    const hint = "use the app of the Satchel that wrote it, or export it again";
    throw bundleError("the bundle is of an unknown schema", { got: version, wanted: SCHEMA_VERSION, hint });
  }
  const read: Manifest = manifest(value, "manifest.json");
  check(read);
  return read;
}

/** Refuses what would lie outside the bundle, or is not read alike by every system. */
export function checkPath(path: string): void {
  const bad = path.split("/").some((p) => ["", ".", ".."].includes(p) || new TextEncoder().encode(p).length > 255);
  // eslint-disable-next-line no-control-regex
  if (bad || /[\\:*?"<>|\u0000-\u001f\u007f]/.test(path)) {
    throw bundleError("a path points outside the bundle or is not portable", { got: path, wanted: "a/b.c" });
  }
}

function check({ files, entry: call, tokens: rules, plan: planned }: Manifest): void {
  checkFiles(files);
  checkPath(call.path);
  if (!files.some((f) => f.path === call.path || f.path.startsWith(`${call.path}/`))) {
    throw bundleError("the model file is not among the files", { got: call.path, hint: "export the bundle again" });
  }
  if (call.format !== planned.format || call.context_length !== planned.context_length) {
    throw bundleError("the model entry and the plan disagree", { got: [call.format, call.context_length] });
  }
  if (call.context_length < 1 || call.prefill_length < 0) {
    throw bundleError("a context or prefill length is out of range", { got: call.context_length, wanted: ">= 1" });
  }
  const ids = [...rules.stop_ids, ...(rules.bos_id === null ? [] : [rules.bos_id])];
  if (rules.vocab_size < 1 || ids.some((id) => id < 0 || id >= rules.vocab_size)) {
    throw bundleError("token ids lie outside the vocabulary", { got: ids, wanted: `0..${rules.vocab_size - 1}` });
  }
  if (rules.prepend_bos && rules.bos_id === null) {
    throw bundleError("the manifest wants a bos id in front and names none");
  }
}

function checkFiles(files: FileEntry[]): void {
  const seen = new Set<string>();
  for (const { path, bytes, sha256 } of files) {
    checkPath(path);
    if (["manifest.json", "parity.json"].includes(path) || seen.has(path.toLowerCase())) {
      throw bundleError("a file is listed twice or may not be listed", { got: path });
    }
    if (bytes < 0 || !/^[0-9a-f]{64}$/.test(sha256)) {
      throw bundleError(`size or sha256 of ${path} is impossible`, { got: [bytes, sha256] });
    }
    seen.add(path.toLowerCase());
  }
}
