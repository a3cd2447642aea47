/** Logits -> the next id, exactly as runtime/FORMAT.md, "Sampling", says; runtime/sampling.py is its twin. */

import { usageError } from "./errors";
import { Pcg64, systemSeed } from "./random";

export interface Sampling {
  /** Divides the logits; 0 is greedy. */
  temperature: number;
  /** The k likeliest ids only; 0 keeps all. */
  topK: number;
  /** The fewest ids whose probabilities sum to at least this; 1 keeps all. */
  topP: number;
}

export type Sampler = (logits: Float32Array) => number;

/** Chooses ids, one random number each; the same seed gives the same choices. Throws a UsageError. */
export function makeSampler(how: Sampling, seed?: number): Sampler {
  checkSampling(how);
  const random = new Pcg64(seed ?? systemSeed());
  return (logits) => (how.temperature === 0 ? greedy(logits) : choose(logits, how, random.next()));
}

export function checkSampling({ temperature, topK, topP }: Sampling): void {
  if (!(temperature >= 0 && temperature < Infinity)) {
    throw usageError("temperature is out of range", { got: temperature, wanted: ">= 0; 0 is greedy" });
  }
  if (!(Number.isInteger(topK) && topK >= 0)) {
    throw usageError("top_k is out of range", { got: topK, wanted: ">= 0; 0 keeps all ids" });
  }
  if (!(topP > 0 && topP <= 1)) {
    throw usageError("top_p is out of range", { got: topP, wanted: "0 < top_p <= 1; 1 keeps all ids" });
  }
}

/** The id of the largest logit; of equal ones the lowest. A NaN counts as the largest, as numpy has it. */
export function greedy(logits: Float32Array): number {
  let best = 0;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i]!;
    if (Number.isNaN(value)) return i;
    if (value > logits[best]!) best = i;
  }
  return best;
}

/** The id that the random number u in [0, 1) picks; the temperature is above 0. */
export function choose(logits: Float32Array, how: Sampling, u: number): number {
  const ids = likeliest(logits, how.topK);
  const first = logits[ids[0]!]! / how.temperature;
  const sums = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i++) sums[i] = total += Math.exp(logits[ids[i]!]! / how.temperature - first);
  const kept = how.topP < 1 ? Math.max(sums.findIndex((sum) => sum >= how.topP * total) + 1, 1) : sums.length;
  const last = sums[kept - 1]!;
  const picked = sums.findIndex((sum) => sum > u * last);
  return ids[picked < 0 ? kept - 1 : Math.min(picked, kept - 1)]!;
}

/** Ids by falling logit, equal ones by rising id: the first topK, or all. */
export function likeliest(logits: Float32Array, topK: number): Uint32Array {
  const byLogit = (a: number, b: number) => logits[b]! - logits[a]! || a - b;
  if (!(topK > 0 && topK < logits.length)) return Uint32Array.from(logits.keys()).sort(byLogit);
  const threshold = logits.slice().sort()[logits.length - topK]!;
  const candidates: number[] = [];
  for (let i = 0; i < logits.length; i++) if (logits[i]! >= threshold) candidates.push(i);
  return Uint32Array.from(candidates).sort(byLogit).slice(0, topK);
}
