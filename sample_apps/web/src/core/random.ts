/**
 * The random numbers of runtime/sampling.py: numpy's `Generator(PCG64(seed)).random()`.
 *
 * PCG64 is O'Neill's PCG XSL-RR 128/64 (pcg-random.org); its state is made from the seed by numpy's SeedSequence, which
 * hashes it into a pool of four words (numpy.org, "Parallel random number generation").
 */

import { usageError } from "./errors";

const MASK_64 = (1n << 64n) - 1n;
const MASK_128 = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** Numbers in [0, 1), with 53 random bits each. */
export class Pcg64 {
  private state: bigint;
  private readonly increment: bigint;

  /** seed: an integer, 0 or above. */
  constructor(seed: number | bigint) {
    if (typeof seed === "number" ? !Number.isSafeInteger(seed) || seed < 0 : seed < 0n) {
      throw usageError("a seed is out of range", { got: String(seed), wanted: "an integer, >= 0" });
    }
    const [a, b, c, d] = seedWords(BigInt(seed)) as [bigint, bigint, bigint, bigint];
    this.increment = ((((c << 64n) | d) << 1n) | 1n) & MASK_128;
    this.state = 0n;
    this.advance();
    this.state = (this.state + ((a << 64n) | b)) & MASK_128;
    this.advance();
  }

  next(): number {
    this.advance();
    const mixed = (this.state >> 64n) ^ (this.state & MASK_64);
    const turn = this.state >> 122n;
    const turned = ((mixed >> turn) | (mixed << ((64n - turn) & 63n))) & MASK_64;
    return Number(turned >> 11n) / 2 ** 53;
  }

  private advance(): void {
    this.state = (this.state * MULTIPLIER + this.increment) & MASK_128;
  }
}

/** A seed from the system, for those who give none: 53 bits. */
export function systemSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];
  return (high % 2 ** 21) * 2 ** 32 + low;
}

const POOL = 4;

/** SeedSequence(seed).generate_state(4, uint64). */
function seedWords(seed: bigint): bigint[] {
  const pool = seedPool(words32(seed));
  let constant = 0x8b51f9dd;
  const words = Array.from({ length: 2 * POOL }, (_, i) => {
    const value = (pool[i % POOL]! ^ constant) >>> 0;
    constant = Math.imul(constant, 0x58f38ded) >>> 0;
    return folded(Math.imul(value, constant));
  });
  return [0, 2, 4, 6].map((i) => BigInt(words[i]!) | (BigInt(words[i + 1]!) << 32n));
}

function seedPool(entropy: number[]): number[] {
  let constant = 0x43b0d7e5;
  const hashed = (value: number): number => {
    const mixed = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    return folded(Math.imul(mixed, constant));
  };
  const pool = Array.from({ length: POOL }, (_, i) => hashed(entropy[i] ?? 0));
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mixed(pool[to]!, hashed(pool[from]!));
  }
  for (const word of entropy.slice(POOL)) {
    for (let to = 0; to < POOL; to++) pool[to] = mixed(pool[to]!, hashed(word));
  }
  return pool;
}

function mixed(x: number, y: number): number {
  return folded((Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0);
}

function folded(x: number): number {
  const value = x >>> 0;
  return (value ^ (value >>> 16)) >>> 0;
}

/** The seed's 32-bit words, the lowest first; at least one. */
function words32(seed: bigint): number[] {
  const words: number[] = [];
  for (let rest = seed; rest > 0n || !words.length; rest >>= 32n) words.push(Number(rest & 0xffffffffn));
  return words;
}
