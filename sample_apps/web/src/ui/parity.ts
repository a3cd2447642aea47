/** The Parity screen: runs the replay, shows the figures, offers parity-<device>.json. */

import { isMaximum } from "../core/limits";
import type { ParityReport, Row } from "../core/parity";
import type { Client } from "./client";
import { element, made, numberIn, withProgress } from "./page";

export class ParityScreen {
  constructor(private readonly client: Client) {
    element<HTMLInputElement>("device").value = deviceName();
    element("run-parity").onclick = () => void this.run();
  }

  /** Forgets the figures of another bundle. */
  clear(): void {
    element("verdict").textContent = "";
    element("download").hidden = true;
    element("figures").hidden = true;
    element("answers").replaceChildren();
  }

  private async run(): Promise<void> {
    this.clear();
    const button = element<HTMLButtonElement>("run-parity");
    const device = fileName(element<HTMLInputElement>("device").value) || deviceName();
    const prompts = numberIn("parity-prompts");
    const host = { device, browser: navigator.userAgent };
    button.disabled = true;
    const report = await withProgress((progress) =>
      this.client.call({ kind: "parity", host, ...(prompts ? { prompts } : {}) }, { progress }),
    );
    button.disabled = false;
    if (report) show(report, device);
  }
}

function show(report: ParityReport, device: string): void {
  const failed = report.rows.filter((row) => !row.passed).length;
  const { prefill, decode } = report.tokensPerSecond;
  const speed = `prefill ${prefill?.toFixed(1) ?? "–"} and decode ${decode?.toFixed(1) ?? "–"} tokens a second`;
  const skipped = report.skipped ? `, ${report.skipped} prompts are longer than the context` : "";
  const verdict = report.passed ? "Passed" : `Failed: ${failed} figures are beyond their limits`;
  element("verdict").textContent = `${verdict} (${speed}${skipped}).`;
  element("verdict").dataset.passed = String(report.passed);
  element("figures").querySelector("tbody")!.replaceChildren(...report.rows.map(rowOf));
  element("figures").hidden = false;
  element("answers").replaceChildren(...answersOf(report));
  const link = element<HTMLAnchorElement>("download");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([report.json], { type: "application/json" }));
  link.download = `parity-${device}.json`;
  link.hidden = false;
}

function rowOf({ comparison, route, figure, value, limit, passed }: Row): HTMLTableRowElement {
  const row = made("tr", "", passed ? {} : { class: "failed" });
  const bound = limit ? `${isMaximum(figure) ? "at most" : "at least"} ${limit.value}` : "";
  const texts = [comparison, route, figure, shown(value), bound, limit ? (passed ? "good" : "beyond") : ""];
  row.append(...texts.map((text) => made("td", text)));
  if (limit) row.title = limit.reason;
  return row;
}

function answersOf({ answers }: ParityReport): HTMLLIElement[] {
  return [...answers].flatMap(([comparison, list]) =>
    list.map(({ prompt, agreed, steps, parted }) => {
      const where = parted ? `, then ${parted.got} where golden has ${parted.wanted} (gap ${shown(parted.gap)})` : "";
      return made("li", `${comparison}, prompt ${prompt + 1}: ${agreed} of ${steps} greedy tokens agree${where}`);
    }),
  );
}

function shown(value: number | null): string {
  return value === null ? "–" : String(Number(value.toPrecision(4)));
}

/** Such as "linux-chrome-150". */
function deviceName(): string {
  const agent = navigator.userAgent;
  const system = /Android|iPhone|iPad|Windows|Mac OS X|CrOS|Linux/.exec(agent)?.[0] ?? "device";
  const browser = /(Firefox|Edg|Chrome|Version)\/(\d+)/.exec(agent);
  const name = browser?.[1]?.replace("Version", "Safari") ?? "browser";
  return fileName(`${system}-${name}-${browser?.[2] ?? ""}`);
}

function fileName(text: string): string {
  return text.toLowerCase().replace(/[^a-z0-9.]+/g, "-").replace(/^-+|-+$/g, "");
}
