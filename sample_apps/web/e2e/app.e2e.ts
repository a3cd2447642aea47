/**
 * The built app in a real browser: opens a bundle, chats, checks parity, works offline, refuses a damaged bundle.
 *
 * SATCHEL_BUNDLE: a bundle to use instead of the tiny one. SATCHEL_PROMPTS: how many golden prompts Parity replays.
 * CHROMIUM: the browser, by default Debian's.
 */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import * as ort from "onnxruntime-web";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { OrtBackend } from "../src/backend-ort";
import { openBundle, type Bundle } from "../src/core/bundle";
import { Session } from "../src/core/generate";
import { readGolden, type GoldenPrompt } from "../src/core/golden";
import { Tokenizer } from "../src/core/tokenizer";
import { DiskSource, tinyBundlePath } from "../tests/support";
import { serve } from "./server";

const ROOT = new URL("..", import.meta.url).pathname;
const PICTURES = join(ROOT, "test-results");
const PATH = process.env.SATCHEL_BUNDLE || tinyBundlePath();
/** No look-ups of the browser's own: a machine without a network is enough. */
const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const LONG = 500_000; // ms, for a model of 135 million weights on a busy machine

describe("the app in a browser", () => {
  let server: Server;
  let url: string;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let scratch: string;
  let bundle: Bundle;
  const errors: string[] = [];

  beforeAll(async () => {
    mkdirSync(PICTURES, { recursive: true });
    scratch = mkdtempSync(join(tmpdir(), "satchel-web-"));
    bundle = await openBundle(new DiskSource(PATH));
    damagedCopy(join(scratch, "damaged"));
    embedded(join(scratch, "page"));
    const bundles = join(scratch, "page", "public", "bundles");
    ({ server, url } = await serve({ "": join(ROOT, "dist"), model: PATH, damaged: join(scratch, "damaged"), bundles }));
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    browser = await chromium.launch({ executablePath, args: QUIET });
    context = await browser.newContext({ colorScheme: "dark", viewport: { width: 960, height: 640 } });
    page = await context.newPage();
    page.on("pageerror", (error) => errors.push(String(error)));
  });

  afterAll(async () => {
    await browser?.close();
    server?.close();
    rmSync(scratch, { recursive: true, force: true });
  });

  /** A copy with one bit of its licence turned; the rest of a large bundle is not needed for that. */
  function damagedCopy(folder: string): void {
    cpSync(PATH, folder, { recursive: true, filter: (path) => !path.endsWith(".data") });
    const path = join(folder, "LICENSE");
    const bytes = readFileSync(path);
    bytes[0]! ^= 1;
    writeFileSync(path, bytes);
  }

  /** A page's project with the tiny bundle in it, as `satchel embed` makes it. */
  function embedded(folder: string): void {
    mkdirSync(folder);
    for (const name of ["package.json", "index.html"]) writeFileSync(join(folder, name), "{}");
    const satchel = process.env.SATCHEL ?? join(ROOT, "../../.venv/bin/satchel");
    execFileSync(satchel, ["embed", tinyBundlePath(), "--app", folder]);
  }

  async function opened(): Promise<void> {
    await page.locator("#chat-screen").waitFor({ timeout: LONG });
    await page.getByText("temperature", { exact: false }).first().waitFor({ state: "attached" });
  }

  async function ask(text: string, tokens: number, temperature = 0): Promise<string> {
    await page.locator("#new-chat").click();
    await page.locator("details").evaluate((node) => ((node as HTMLDetailsElement).open = true));
    await page.getByLabel("Temperature").fill(String(temperature));
    await page.getByLabel("Longest answer").fill(String(tokens));
    await page.locator("details").evaluate((node) => ((node as HTMLDetailsElement).open = false));
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByText(/tokens a second/).waitFor({ timeout: LONG });
    return (await page.locator("#messages li.assistant").textContent()) ?? "";
  }

  it("gets threads from a server that sends no headers for them", async () => {
    await page.goto(url);
    await page.waitForFunction("crossOriginIsolated", undefined, { timeout: 60_000 });
    expect(await page.title()).toBe("Satchel");
  });

  it("says what is wrong with a damaged bundle, and with an address where there is none", async () => {
    for (const [place, message] of [["damaged/", /LICENSE.*sha256/i], ["nothing/", /not a bundle.*404/i]] as const) {
      await page.getByLabel("Address of a .satchel folder").fill(url + place);
      await page.getByRole("button", { name: "Open", exact: true }).click();
      await page.getByRole("alert").filter({ hasText: message }).waitFor({ timeout: 60_000 });
    }
    await page.screenshot({ path: join(PICTURES, "error.png") });
  });

  it("offers the bundles that were embedded, and opens one", async () => {
    await page.goto(url);
    await page.getByRole("button", { name: /^Open tiny-llama.* of this site$/ }).click();
    await opened();
    await page.locator("#show-bundle").click();
  });

  it("opens a bundle by its address", async () => {
    await page.getByLabel("Address of a .satchel folder").fill("model/manifest.json"); // relative
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await opened();
    console.log(await page.locator("#model").textContent());
  });

  it("chats, and its greedy answer is golden's", async () => {
    const golden = await readGolden(bundle);
    const tokenizer = Tokenizer.read(await bundle.read("tokenizer.json"), bundle.manifest.tokens.vocab_size);
    const isWhole = (p: GoldenPrompt) => p.text!.endsWith("sentence.") && tokenizer.decode(p.ids).includes(p.text!);
    const whole = golden.prompts.findIndex(isWhole);
    const prompt = Math.max(whole, 0);
    const steps = golden.prompts[0]!.continuation.length;
    const count = whole < 0 ? 8 : 24;
    const answer = await ask(golden.prompts[prompt]!.text!.slice(0, 20 + 1000 * Number(whole >= 0)), count);
    console.log(JSON.stringify(answer), await page.locator("#speed").textContent());
    await page.screenshot({ path: join(PICTURES, "chat.png") });
    if (whole < 0) {
      // The tiny model's context cuts golden's prompts: Parity compares its answers, and here is what Node says.
      expect(answer).toBe(await answerInNode(golden.prompts[prompt]!.text!.slice(0, 20), count));
      return;
    }
    const ids = [...golden.sets.get("weights")!.greedyIds.subarray(prompt * steps, prompt * steps + count)];
    const stop = ids.findIndex((id) => bundle.manifest.tokens.stop_ids.includes(id));
    console.log("golden:", JSON.stringify(tokenizer.decode(stop < 0 ? ids : ids.slice(0, stop))));
    expect(answer).toBe(tokenizer.decode(stop < 0 ? ids : ids.slice(0, stop)));
  });

  async function answerInNode(content: string, maxNewTokens: number): Promise<string> {
    ort.env.wasm.numThreads = 1;
    const session = await Session.open(bundle, await OrtBackend.open(ort, bundle));
    let text = "";
    for await (const piece of session.chat([{ role: "user", content }], { maxNewTokens, temperature: 0 })) text += piece.text;
    return text;
  }

  it("stops when told to, and keeps the chat", async () => {
    await page.locator("#new-chat").click();
    await page.getByLabel("Longest answer").evaluate((node) => ((node as HTMLInputElement).value = "200"));
    await page.getByLabel("Message", { exact: true }).fill("Count: 1 2 3");
    await page.getByRole("button", { name: "Send" }).click();
    // A tiny model may be done already.
    await page.getByRole("button", { name: "Stop" }).click({ timeout: 5_000 }).catch(() => undefined);
    await page.getByText(/tokens a second/).waitFor({ timeout: LONG });
    await expect.poll(() => page.locator("#chats li").count()).toBeGreaterThanOrEqual(2);
  });

  it("checks parity, and offers the report", async () => {
    await page.getByRole("button", { name: "Parity", exact: true }).click();
    await page.getByLabel("Prompts").fill(process.env.SATCHEL_PROMPTS ?? "");
    await page.getByRole("button", { name: "Run", exact: true }).click();
    await page.locator("#verdict[data-passed]").waitFor({ timeout: LONG });
    const clicked = page.getByText("Download the report").click();
    const [download] = await Promise.all([page.waitForEvent("download"), clicked]);
    expect(download.suggestedFilename()).toMatch(/^parity-linux-chrome-\d+\.json$/);
    await download.saveAs(join(PICTURES, "parity.json"));
    const report = JSON.parse(readFileSync(join(PICTURES, "parity.json"), "utf-8")) as Report;
    console.log(await page.locator("#verdict").textContent(), JSON.stringify(report.timings));
    expect(report.failures.filter((failure) => failure.comparison === "lowering")).toEqual([]);
    const greedy = report.runs[0]!.comparisons.lowering!.greedy!;
    console.log(JSON.stringify(report.runs[0]!.comparisons.lowering), JSON.stringify(report.runs[0]!.answers.lowering));
    if (!process.env.SATCHEL_BUNDLE) expect(greedy.find((f) => f.figure === "greedy_agreement")!.value).toBe(1);
    await page.screenshot({ path: join(PICTURES, "parity.png") });
  });

  it("opens a folder that a person picks", async () => {
    await page.getByRole("button", { name: "Bundle", exact: true }).click();
    await page.getByLabel("Keep it in this browser").uncheck();
    await page.getByLabel("Choose a .satchel folder").setInputFiles(PATH);
    await page.locator("#chat-screen").waitFor({ state: "hidden", timeout: 10_000 }).catch(() => undefined);
    await opened();
    await ask("hello", 4);
  });

  it("works offline after the first load", async () => {
    server.close();
    server.closeAllConnections();
    await page.goto(url);
    await page.getByRole("button", { name: /^Open .*model|^Open model/ }).click();
    await opened();
    expect(await page.evaluate("crossOriginIsolated")).toBe(true);
    expect((await ask("hello", 4, 1)).length).toBeGreaterThan(0);
    expect(errors).toEqual([]);
  });
});

interface Report {
  failures: { comparison: string }[];
  timings: unknown;
  runs: {
    comparisons: Record<string, Record<string, { figure: string; value: number }[]>>;
    answers: Record<string, unknown>;
  }[];
}
