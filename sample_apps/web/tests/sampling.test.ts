import { describe, expect, it } from "vitest";

import { Pcg64 } from "../src/core/random";
import { checkSampling, choose, greedy, makeSampler } from "../src/core/sampling";
import { vectors } from "./support";

interface Vectors {
  random: { seed: string; numbers: number[] }[];
  choices: { logits: number[]; temperature: number; top_k: number; top_p: number; u: number[]; ids: number[]; greedy: number }[];
  runs: { seed: string; logits: number[]; temperature: number; top_k: number; top_p: number; ids: number[] }[];
}

describe("sampling", () => {
  const { random, choices, runs } = vectors<Vectors>("sampling.json");

  it("draws numpy's random numbers", () => {
    for (const { seed, numbers } of random) {
      const generator = new Pcg64(BigInt(seed));
      expect(numbers.map(() => generator.next())).toEqual(numbers);
    }
  });

  it("picks the runtime's ids", () => {
    for (const { logits, temperature, top_k, top_p, u, ids, greedy: best } of choices) {
      const row = Float32Array.from(logits);
      const how = { temperature, topK: top_k, topP: top_p };
      expect(u.map((x) => choose(row, how, x))).toEqual(ids);
      expect(greedy(row)).toBe(best);
    }
  });

  it("goes through a whole answer as the runtime does", () => {
    for (const { seed, logits, temperature, top_k, top_p, ids } of runs.filter((run) => BigInt(run.seed) < 2n ** 53n)) {
      const sampler = makeSampler({ temperature, topK: top_k, topP: top_p }, Number(seed));
      expect(ids.map(() => sampler(Float32Array.from(logits)))).toEqual(ids);
    }
  });

  it("refuses settings out of range", () => {
    const good = { temperature: 1, topK: 0, topP: 1 };
    for (const bad of [{ temperature: -1 }, { temperature: NaN }, { topK: -1 }, { topK: 1.5 }, { topP: 0 }, { topP: 1.1 }]) {
      expect(() => checkSampling({ ...good, ...bad })).toThrow("out of range");
    }
    for (const seed of [-1, 0.5, 2 ** 53, -1n]) expect(() => new Pcg64(seed)).toThrow("a seed is out of range");
  });
});
