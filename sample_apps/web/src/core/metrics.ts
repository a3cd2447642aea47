/** How far logits are from the golden ones, sums in fp64. runtime/metrics.py is its twin, and says what KL is taken over. */

/**
 * KL divergence of one row in nats, over the reference's top ids and one lump of all others.
 * topLogits: the reference's, of topIds; rest: its logsumexp over the others, -Infinity for none.
 * candidate: the whole row, [vocab].
 */
export function klFromTop(
  topIds: Int32Array,
  topLogits: Float32Array,
  rest: number,
  candidate: Float32Array,
): number {
  const p = normalized([...topLogits, rest]);
  const q = normalized([...Array.from(topIds, (id) => candidate[id]!), logsumexpWithout(candidate, topIds)]);
  let sum = 0;
  for (let i = 0; i < p.length; i++) if (p[i] !== -Infinity) sum += Math.exp(p[i]!) * (p[i]! - q[i]!);
  return sum > 0 || Number.isNaN(sum) ? sum : 0;
}

/** The largest absolute difference at the reference's top ids. */
export function largestDifference(topIds: Int32Array, topLogits: Float32Array, candidate: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < topIds.length; i++) {
    largest = Math.max(largest, Math.abs(topLogits[i]! - candidate[topIds[i]!]!)); // NaN wins
  }
  return largest;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Interpolates linearly, as numpy does. fraction: 0 to 1. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = fraction * (sorted.length - 1);
  const low = sorted[Math.floor(place)]!;
  return low + (sorted[Math.ceil(place)]! - low) * (place - Math.floor(place));
}

/** Standard error of the mean, from the means of consecutive blocks, since neighbours are alike; NaN below two blocks. */
export function standardError(values: readonly number[], block: number): number {
  const blocks = Math.floor(values.length / block);
  if (blocks < 2) return NaN;
  const means = Array.from({ length: blocks }, (_, i) => mean(values.slice(i * block, (i + 1) * block)));
  const centre = mean(means);
  const variance = means.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (blocks - 1);
  return Math.sqrt(variance / blocks);
}

function normalized(values: number[]): number[] {
  const whole = logsumexp(values);
  return values.map((value) => value - whole);
}

function logsumexp(values: Iterable<number>): number {
  let largest = -Infinity;
  for (const value of values) if (!(value <= largest)) largest = value;
  const shift = Number.isFinite(largest) ? largest : 0;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - shift);
  return Math.log(sum) + shift;
}

function logsumexpWithout(row: Float32Array, ids: Int32Array): number {
  const others = row.slice();
  for (const id of ids) others[id] = -Infinity;
  return logsumexp(others);
}
