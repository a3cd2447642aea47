/** Does this device say what the bundle's golden data say? The report has the keys of runtime/parity.py's. */

import type { Backend } from "./backend";
import type { Bundle } from "./bundle";
import { bundleError } from "./errors";
import { readGolden, type SetName } from "./golden";
import { allows, arithmeticOf, isMaximum, limitsFor, tieOf, type Comparison, type Limit } from "./limits";
import { mean } from "./metrics";
import { replay, type Answer, type Figures, type Replay, type ReplayOptions } from "./replay";
import { canonicalJson } from "./strict-json";

const COMPARISONS: [Comparison, SetName][] = [
  ["lowering", "weights"],
  ["quality", "reference"],
];

/** One figure, with what was allowed; no limit where the figure is for information. */
export interface Row {
  comparison: Comparison;
  route: "decode" | "prefill" | "greedy";
  figure: string;
  value: number | null;
  limit?: Limit;
  passed: boolean;
}

/** What ran the model, beside the keys that `satchel validate` writes. */
export interface Host {
  /** For the file's name, such as "linux-chrome-150". */
  device: string;
  browser: string;
  runtime: string;
  threads: number;
}

export interface ParityReport {
  passed: boolean;
  rows: Row[];
  answers: Map<Comparison, Answer[]>;
  skipped: number;
  tokensPerSecond: { prefill: number | null; decode: number | null };
  /** The content of parity-<device>.json. */
  json: string;
}

export async function checkParity(
  bundle: Bundle,
  backend: Backend,
  host: Host,
  loadSeconds: number,
  options: ReplayOptions = {},
): Promise<ParityReport> {
  const { entry, weights } = bundle.manifest;
  const golden = await readGolden(bundle);
  if (golden.prompts.every((prompt) => prompt.ids.length > entry.context_length)) {
    throw bundleError("no golden prompt fits the context", { wanted: entry.context_length });
  }
  const result = await replay(backend, golden, entry.context_length, options);
  const rows: Row[] = [];
  const answers = new Map<Comparison, Answer[]>();
  for (const [comparison, set] of COMPARISONS) {
    if (!result.rows.has(set)) continue;
    rows.push(...judged(result, comparison, set, weights.scheme));
    answers.set(comparison, result.answers.get(set)!);
  }
  const tokensPerSecond = { prefill: rate(result, "prefill"), decode: rate(result, "decode") };
  const passed = rows.every((row) => row.passed);
  const report = { passed, rows, answers, skipped: result.skipped, tokensPerSecond };
  return { ...report, json: canonicalJson(reportJson(bundle, report, result, host, loadSeconds)) };
}

function judged(result: Replay, comparison: Comparison, set: SetName, scheme: string): Row[] {
  const arithmetic = arithmeticOf(scheme);
  const tie = tieOf(comparison, arithmetic);
  const limits = limitsFor(comparison, arithmetic, scheme);
  const { decode, prefill } = result.rows.get(set)!;
  const found = {
    decode: decode.figures(tie),
    prefill: prefill.figures(tie),
    greedy: greedyFigures(result.answers.get(set)!, tie),
  };
  return (["decode", "prefill", "greedy"] as const).flatMap((route) =>
    Object.entries(found[route]).map(([figure, value]): Row => {
      const limit = limits.get(figure);
      return { comparison, route, figure, value, passed: allows(limit, figure, value), ...(limit ? { limit } : {}) };
    }),
  );
}

function greedyFigures(answers: Answer[], tie: number): Figures {
  return {
    greedy_agreement: mean(answers.map((answer) => answer.agreed / answer.steps)),
    greedy_diverged: mean(answers.map(({ parted }) => Number(parted !== undefined && !(parted.gap < tie)))),
    prompts: answers.length,
  };
}

function rate({ tokens, seconds }: Replay, route: "prefill" | "decode"): number | null {
  return seconds[route] > 0 ? tokens[route] / seconds[route] : null;
}

function reportJson(
  bundle: Bundle,
  report: Omit<ParityReport, "json">,
  result: Replay,
  host: Host,
  loadSeconds: number,
): Record<string, unknown> {
  const { model, plan, entry, weights } = bundle.manifest;
  const arithmetic = arithmeticOf(weights.scheme);
  const answers = [...report.answers].map(([comparison, list]) => {
    const tie = tieOf(comparison, arithmetic);
    return [comparison, list.map((answer) => answerJson(answer, tie))];
  });
  const failures = report.rows.filter((row) => !row.passed);
  return {
    schema_version: 1,
    passed: report.passed,
    bundle: {
      model: model.model_id, device: plan.device, format: entry.format, weights: weights.scheme,
      bytes: bundle.bytes + bundle.manifestBytes.length, manifest: bundle.id,
    },
    host,
    skipped_prompts: report.skipped,
    runs: [
      {
        name: "onnxruntime-web", arithmetic, comparisons: nested(report.rows), answers: Object.fromEntries(answers),
        positions: positions(result),
      },
    ],
    failures: failures.map((row) => ({
      run: "onnxruntime-web", comparison: row.comparison, route: row.route, ...rowJson(row),
    })),
    timings: {
      "onnxruntime-web": {
        load_seconds: rounded(loadSeconds),
        prefill_tokens_per_second: rounded(report.tokensPerSecond.prefill),
        decode_tokens_per_second: rounded(report.tokensPerSecond.decode),
      },
    },
  };
}

/** Figures of single positions, by which devices are compared with each other. */
function positions({ rows, starts }: Replay): Record<string, unknown> {
  const { rows: places, best, margin, logits } = rows.get("reference")!.decode;
  const kl = COMPARISONS.filter(([, set]) => rows.has(set)).map(([comparison, set]) => [
    comparison, rows.get(set)!.decode.kl.map(rounded),
  ]);
  return {
    starts, rows: places, best, margin: margin.map(rounded), logits: logits.map(rounded), kl: Object.fromEntries(kl),
  };
}

function nested(rows: Row[]): Record<string, Record<string, unknown[]>> {
  const found: Record<string, Record<string, unknown[]>> = {};
  for (const row of rows) ((found[row.comparison] ??= {})[row.route] ??= []).push(rowJson(row));
  return found;
}

function rowJson({ figure, value, limit, passed }: Row): Record<string, unknown> {
  const said = { figure, value: rounded(value) };
  if (!limit) return said;
  return { ...said, [isMaximum(figure) ? "at_most" : "at_least"]: limit.value, reason: limit.reason, passed };
}

function answerJson({ prompt, agreed, steps, parted, ids }: Answer, tie: number): Record<string, unknown> {
  if (!parted) return { prompt, agreed, steps, ids };
  const { got, wanted, gap, runnerUp } = parted;
  return { prompt, agreed, steps, ids, got, wanted, gap: rounded(gap), near_tie: gap < tie, runner_up: runnerUp };
}

/** Six digits; null where there is no number. */
function rounded(value: number | null): number | null {
  return value === null || !Number.isFinite(value) ? null : Number(value.toPrecision(6));
}
