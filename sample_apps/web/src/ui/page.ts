/** Parts of the page that every screen uses: elements, progress, errors. */

import { CallError } from "./client";

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found as T;
}

export function made<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  text = "",
  attributes: Record<string, string> = {},
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** A number field's content; undefined where it is empty. */
export function numberIn(id: string): number | undefined {
  const { value } = element<HTMLInputElement>(id);
  return value.trim() === "" ? undefined : Number(value);
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

export function showError(error: unknown): void {
  const box = element("error");
  const cancelled = error instanceof CallError && error.failure.kind === "Cancelled";
  const message = error instanceof Error ? error.message : String(error);
  box.textContent = cancelled ? "" : message[0]?.toUpperCase() + message.slice(1);
  box.hidden = cancelled;
}

export function clearError(): void {
  element("error").hidden = true;
}

/** Shows a bar until the work is done, with a button that cancels it; an error becomes a message, and undefined. */
export async function withProgress<T>(
  start: (progress: (stage: string, done: number, total: number) => void) => { done: Promise<T>; cancel: () => void },
): Promise<T | undefined> {
  clearError();
  const [box, bar, text] = [element("progress"), element<HTMLProgressElement>("progress-bar"), element("progress-text")];
  const work = start((stage, done, total) => {
    text.textContent = total ? `${stage}: ${Math.floor((100 * done) / total)} %` : stage;
    if (total) [bar.max, bar.value] = [total, done];
    else bar.removeAttribute("value");
  });
  bar.removeAttribute("value");
  text.textContent = "Working";
  element("cancel").onclick = work.cancel;
  box.hidden = false;
  try {
    return await work.done;
  } catch (error) {
    showError(error);
    return undefined;
  } finally {
    box.hidden = true;
  }
}
