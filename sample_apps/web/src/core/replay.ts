/**
 * Replays golden prompts through a backend by every route that an app takes. runtime/replay.py is its twin.
 *
 * decode: every id by a step, from an empty cache. prefill: the prompt in one call and in two, each followed by FORCED
 * steps, and the whole sequence in one. greedy: the prompt by prefill, then what the backend itself thinks best.
 */

import type { Backend } from "./backend";
import { throwIfCancelled } from "./errors";
import { sequenceOf, type Golden, type GoldenPrompt, type GoldenSet, type SetName } from "./golden";
import { klFromTop, largestDifference, mean, percentile, standardError } from "./metrics";
import { greedy } from "./sampling";

export type Route = "decode" | "prefill";
export type Figures = Record<string, number | null>;

const FORCED = 8; // decode steps after a prefill
const KEPT = 4; // logits kept of each row, those of golden's best ids
const LARGEST = 1e30; // stands for infinity in figures, so that JSON can hold it

/** Figures of each row that a route gave, against one golden set. */
export class RowFigures {
  readonly rows: number[] = [];
  readonly best: number[] = [];
  /** By how much the largest logit exceeds the second. */
  readonly margin: number[] = [];
  /** Of golden's KEPT best ids, one row after the other. */
  readonly logits: number[] = [];
  readonly kl: number[] = [];
  private readonly agrees: boolean[] = [];
  private readonly gap: number[] = [];
  private readonly difference: number[] = [];

  add(set: GoldenSet, top: number, row: number, logits: Float32Array): void {
    const ids = set.topIds.subarray(row * top, (row + 1) * top);
    const values = set.topLogits.subarray(row * top, (row + 1) * top);
    const best = greedy(logits);
    this.rows.push(row);
    this.best.push(best);
    this.margin.push(marginOf(logits, best));
    this.logits.push(...Array.from(ids.subarray(0, KEPT), (id) => logits[id]!));
    this.kl.push(klFromTop(ids, values, set.restLogsumexp[row]!, logits));
    this.agrees.push(best === ids[0]);
    this.gap.push(top > 1 ? values[0]! - values[1]! : Infinity);
    this.difference.push(largestDifference(ids, values, logits));
  }

  /** tie: the gap below which another best id is a matter of rounding. NaN and infinity pass no limit. */
  figures(tie: number): Figures {
    const kl = this.kl.map(bounded);
    const error = this.kl.every(Number.isFinite) ? standardError(this.kl, FORCED * 2) : NaN;
    return {
      kl_mean: mean(kl),
      kl_p99: percentile(kl, 0.99),
      kl_max: Math.max(...kl),
      kl_standard_error: Number.isFinite(error) ? error : null,
      top1: mean(this.agrees.map(Number)),
      top1_or_tie: mean(this.agrees.map((agrees, i) => Number(agrees || this.gap[i]! < tie))),
      difference_max: Math.max(...this.difference.map(bounded)),
      positions: kl.length,
    };
  }
}

/** A greedy answer beside a golden one. */
export interface Answer {
  prompt: number;
  /** Ids before the first that differs. */
  agreed: number;
  steps: number;
  /** The first ids that differ, by how much the golden model preferred its own, and whether `got` was its second. */
  parted?: { got: number; wanted: number; gap: number; runnerUp: boolean };
  /** The whole answer. */
  ids: number[];
}

export interface Replay {
  /** Golden row at which each prompt begins. */
  starts: number[];
  rows: Map<SetName, Record<Route, RowFigures>>;
  answers: Map<SetName, Answer[]>;
  seconds: Record<Route, number>;
  tokens: Record<Route, number>;
  /** Prompts that the context cannot hold. */
  skipped: number;
}

export interface ReplayOptions {
  /** Only the first so many prompts. */
  prompts?: number;
  progress?: (done: number, total: number) => void;
  /** Lets other messages in between two calls. */
  pause?: () => Promise<void>;
  signal?: AbortSignal;
}

export async function replay(
  backend: Backend,
  golden: Golden,
  contextLength: number,
  options: ReplayOptions = {},
): Promise<Replay> {
  const names = [...golden.sets.keys()];
  const result: Replay = {
    starts: [],
    rows: new Map(names.map((name) => [name, { decode: new RowFigures(), prefill: new RowFigures() }])),
    answers: new Map(names.map((name) => [name, []])),
    seconds: { decode: 0, prefill: 0 },
    tokens: { decode: 0, prefill: 0 },
    skipped: 0,
  };
  const timed = new Timed(backend, result, options);
  const prompts = golden.prompts.slice(0, options.prompts);
  let start = 0;
  for (const [number, prompt] of prompts.entries()) {
    result.starts.push(start);
    if (prompt.ids.length > contextLength) result.skipped++;
    else await replayPrompt(timed, golden, number, cut(prompt, contextLength), start, result);
    start += sequenceOf(prompt).length;
    options.progress?.(number + 1, prompts.length);
  }
  return result;
}

/** The prompt with as much of its continuation as the cache holds; the last id needs no place. */
function cut(prompt: GoldenPrompt, contextLength: number): GoldenPrompt {
  return { ...prompt, continuation: prompt.continuation.slice(0, contextLength - prompt.ids.length + 1) };
}

async function replayPrompt(
  backend: Timed,
  golden: Golden,
  number: number,
  prompt: GoldenPrompt,
  start: number,
  result: Replay,
): Promise<void> {
  for (const route of ["decode", "prefill"] as const) {
    for await (const [offset, logits] of route === "decode" ? decode(backend, prompt) : prefill(backend, prompt)) {
      for (const [name, set] of golden.sets) result.rows.get(name)![route].add(set, golden.top, start + offset, logits);
    }
  }
  const steps = golden.prompts[0]!.continuation.length;
  const answer = await answerOf(backend, prompt);
  for (const [name, set] of golden.sets) result.answers.get(name)!.push(compare(number, answer, set, steps));
}

type Rows = AsyncGenerator<[offset: number, logits: Float32Array]>;

async function* decode(backend: Timed, prompt: GoldenPrompt): Rows {
  backend.reset();
  for (const [offset, id] of sequenceOf(prompt).entries()) yield [offset, await backend.step(id)];
}

async function* prefill(backend: Timed, prompt: GoldenPrompt): Rows {
  const last = prompt.ids.length - 1;
  for (const half of new Set([0, Math.floor(prompt.ids.length / 2)])) {
    backend.reset();
    if (half) yield [half - 1, await backend.prefill(prompt.ids.slice(0, half))];
    yield [last, await backend.prefill(prompt.ids.slice(half))];
    for (const [i, id] of prompt.continuation.slice(0, -1).slice(0, FORCED).entries()) {
      yield [last + 1 + i, await backend.step(id)];
    }
  }
  backend.reset();
  const sequence = sequenceOf(prompt);
  yield [sequence.length - 1, await backend.prefill(sequence)];
}

async function answerOf(backend: Timed, prompt: GoldenPrompt): Promise<number[]> {
  backend.reset();
  const chosen = [greedy(await backend.prefill(prompt.ids))];
  while (chosen.length < prompt.continuation.length) chosen.push(greedy(await backend.step(chosen.at(-1)!)));
  return chosen;
}

function compare(prompt: number, ids: number[], set: GoldenSet, steps: number): Answer {
  const row = prompt * steps;
  const agreed = ids.findIndex((id, i) => id !== set.greedyIds[row + i]);
  if (agreed < 0) return { prompt, agreed: ids.length, steps: ids.length, ids };
  const [got, wanted] = [ids[agreed]!, set.greedyIds[row + agreed]!];
  const gap = set.greedyGap[row + agreed]!;
  const parted = { got, wanted, gap, runnerUp: got === set.greedyRunnerUp[row + agreed] };
  return { prompt, agreed, steps: ids.length, parted, ids };
}

/** A backend with a stopwatch, that lets a person cancel between two calls. */
class Timed {
  constructor(
    private readonly backend: Backend,
    private readonly result: Replay,
    private readonly options: ReplayOptions,
  ) {}

  reset(): void {
    this.backend.reset();
  }

  prefill(ids: readonly number[]): Promise<Float32Array> {
    return this.measure("prefill", ids.length, () => this.backend.prefill(ids));
  }

  step(id: number): Promise<Float32Array> {
    return this.measure("decode", 1, () => this.backend.step(id));
  }

  private async measure(route: Route, tokens: number, call: () => Promise<Float32Array>): Promise<Float32Array> {
    throwIfCancelled(this.options.signal);
    const start = performance.now();
    const logits = await call();
    this.result.seconds[route] += (performance.now() - start) / 1000;
    this.result.tokens[route] += tokens;
    await this.options.pause?.();
    return logits;
  }
}

function marginOf(logits: Float32Array, best: number): number {
  let second = -Infinity;
  for (let id = 0; id < logits.length; id++) if (id !== best && logits[id]! > second) second = logits[id]!;
  return logits[best]! - second;
}

function bounded(value: number): number {
  return Number.isNaN(value) ? LARGEST : Math.min(value, LARGEST);
}
