/** How far a bundle may be from its golden data. The table is runtime/limits.py's, see limits.json. */

import table from "./limits.json";

export type Comparison = "lowering" | "quality";
export type Arithmetic = "fp32" | "fp16" | "int8";

export interface Limit {
  figure: string;
  value: number;
  reason: string;
}

const MAXIMA: string[] = table.maxima;

/** How onnxruntime computes: its kernels for compressed weights take activations in 8 bits. */
export function arithmeticOf(scheme: string): Arithmetic {
  return scheme === "fp32" || scheme === "fp16" ? scheme : "int8";
}

/** The gap of logits below which rounding may choose the other id. */
export function tieOf(comparison: Comparison, arithmetic: Arithmetic): number {
  return comparison === "lowering" ? table.ties[arithmetic] : table.quality_tie;
}

/** The limits of a comparison by figure. scheme: of the manifest's weights. */
export function limitsFor(comparison: Comparison, arithmetic: Arithmetic, scheme: string): Map<string, Limit> {
  const lowering: Record<Arithmetic, Limit[]> = table.lowering;
  const quality: Record<string, Record<string, Limit[]>> = table.quality;
  const limits = comparison === "lowering" ? lowering[arithmetic] : (quality[arithmetic]?.[scheme] ?? []);
  return new Map(limits.map((limit) => [limit.figure, limit]));
}

export function isMaximum(figure: string): boolean {
  return MAXIMA.includes(figure);
}

/** Whether a figure is within its limit; true without one, false for a figure that could not be had. */
export function allows(limit: Limit | undefined, figure: string, value: number | null): boolean {
  if (!limit) return true;
  if (value === null) return false;
  return isMaximum(figure) ? value <= limit.value : value >= limit.value;
}
