/** What a loaded model does, whatever runs it. */

export interface Backend {
  /** Ids in the cache. */
  readonly position: number;
  /** Empties the cache. */
  reset(): void;
  /** Appends ids in one call; the logits after the last, [vocab]. Throws a UsageError beyond the context. */
  prefill(ids: readonly number[]): Promise<Float32Array>;
  /** Appends one id; the logits after it, [vocab]. */
  step(id: number): Promise<Float32Array>;
  /** Frees the model. */
  close(): Promise<void>;
}
