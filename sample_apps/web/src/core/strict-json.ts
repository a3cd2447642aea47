/**
 * JSON that means the same in every language: UTF-8 without repeated keys, lone surrogates, infinities, or integers
 * that a number of JavaScript cannot hold. runtime/strict_json.py is its twin.
 */

import { bundleError, reasonOf } from "./errors";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/**
 * Bytes -> value. `exactIntegers` is off for tokenizers' files, which hold larger ones.
 * Throws a BundleError that names the file.
 */
export function parseJson(bytes: Uint8Array, what: string, exactIntegers = true): Json {
  try {
    const text = decodeUtf8(bytes);
    const value = JSON.parse(text) as Json;
    refuseRepeatedKeys(text);
    checkValue(value, exactIntegers);
    return value;
  } catch (error) {
    throw bundleError(`${what} is not valid JSON`, { got: reasonOf(error), hint: "export the bundle again" });
  }
}

/** UTF-8 without replacement characters; throws TypeError. */
export function decodeUtf8(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

/** JSON with sorted keys, two spaces of indentation and a newline at the end. */
export function canonicalJson(value: unknown): string {
  const sorted = (_: string, item: unknown): unknown =>
    item !== null && typeof item === "object" && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item;
  return JSON.stringify(value, sorted, 2) + "\n";
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;

/** Of text that JSON.parse accepts, in which tokens are therefore easily told apart. */
function refuseRepeatedKeys(text: string): void {
  const scopes: (Set<string> | null)[] = [];
  let last = "";
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{") scopes.push(new Set());
    else if (token === "[") scopes.push(null);
    else if (token === "}" || token === "]") scopes.pop();
    else if (token === ":") addKey(scopes.at(-1), JSON.parse(last) as string);
    last = token;
  }
}

function addKey(keys: Set<string> | null | undefined, key: string): void {
  if (keys?.has(key)) throw new Error(`the key ${key} occurs twice`);
  keys?.add(key);
}

function checkValue(value: Json, exactIntegers: boolean): void {
  if (typeof value === "string" && /\p{Surrogate}/u.test(value)) throw new Error("half of a surrogate pair");
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new Error("a number too large");
    if (exactIntegers && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      throw new Error("an integer beyond 2^53 - 1");
    }
  }
  if (Array.isArray(value)) for (const item of value) checkValue(item, exactIntegers);
  else if (value !== null && typeof value === "object") {
    for (const [key, item] of Object.entries(value)) {
      checkValue(key, exactIntegers);
      checkValue(item, exactIntegers);
    }
  }
}
