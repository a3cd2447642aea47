/** Puts the screens together: opening a bundle, and what comes after. */

import type { Loaded, Place } from "../worker/protocol";
import { ChatScreen } from "./chat";
import { Client } from "./client";
import { startOffline } from "./offline";
import { element, made, megabytes, showError, withProgress } from "./page";
import { ParityScreen } from "./parity";
import { placedBundles } from "./placed";

const SCREENS = ["bundle", "chat", "parity"] as const;

const client = new Client();
const chat = new ChatScreen(client);
const parity = new ParityScreen(client);

for (const name of SCREENS) element(`show-${name}`).onclick = () => showScreen(name);

element("url-form").addEventListener("submit", (event) => {
  event.preventDefault();
  openAddress(element<HTMLInputElement>("url").value.trim());
});
element("folder").addEventListener("change", () => {
  const input = element<HTMLInputElement>("folder");
  const files = [...(input.files ?? [])];
  input.value = "";
  if (files.length) void open(picked(files));
});

void startOffline().catch(showError);
void listStored();
void listPlaced();
const asked = new URLSearchParams(location.search).get("bundle");
if (asked) openAddress(asked);

/** An address may be relative to the page's. */
function openAddress(address: string): void {
  if (URL.canParse(address, document.baseURI)) void open({ kind: "url", url: new URL(address, document.baseURI).href });
  else showError(`This is no address: ${address}`);
}

async function open(place: Place): Promise<void> {
  const keep = element<HTMLInputElement>("keep").checked;
  enable(false);
  const loaded = await withProgress((progress) => client.call({ kind: "open", place, keep }, { progress }));
  await listStored();
  if (!loaded) return;
  element("model").textContent = described(loaded);
  chat.open(loaded);
  parity.clear();
  enable(true);
  showScreen("chat");
  if (loaded.notKept) showError(`The bundle is open, but was not kept for use offline: ${loaded.notKept}`);
}

/** Files by their paths within the bundle: the browser puts the chosen folder's name in front. */
function picked(files: File[]): Place {
  const paths = files.map((file) => file.webkitRelativePath || file.name);
  const name = paths[0]?.split("/")[0] ?? "folder";
  return { kind: "files", name, files: files.map((file, i) => [paths[i]!.split("/").slice(1).join("/") || file.name, file]) };
}

async function listPlaced(): Promise<void> {
  const items = (await placedBundles()).map((address) => {
    const name = address.split("/").at(-1)!;
    const use = made("button", "Open", { type: "button", "aria-label": `Open ${name} of this site` });
    use.onclick = () => openAddress(address);
    const item = made("li");
    item.append(made("span", name), use);
    return item;
  });
  element("placed").replaceChildren(...items);
  element("placed-part").hidden = !items.length;
}

async function listStored(): Promise<void> {
  const stored = await client.call({ kind: "list" }).done.catch(() => []);
  const items = stored.map(({ id, name, bytes }) => {
    const item = made("li");
    const use = made("button", "Open", { type: "button", "aria-label": `Open ${name}` });
    use.onclick = () => void open({ kind: "stored", id });
    const remove = made("button", "Delete", { type: "button", "aria-label": `Delete ${name}` });
    remove.onclick = () => void client.call({ kind: "forget", id }).done.then(listStored, showError);
    item.append(made("span", `${name} (${megabytes(bytes)})`), use, remove);
    return item;
  });
  element("stored").replaceChildren(...(items.length ? items : [made("li", "None yet.", { class: "quiet" })]));
}

function described({ model, device, weights, bytes, threads, loadSeconds }: Loaded): string {
  const speed = `started in ${loadSeconds.toFixed(1)} s on ${threads} thread${threads === 1 ? "" : "s"}`;
  return `${model} for ${device}, ${weights}, ${megabytes(bytes)}, memory ${megabytes(client.memory)}, ${speed}`;
}

function showScreen(shown: (typeof SCREENS)[number]): void {
  for (const name of SCREENS) {
    element(`${name}-screen`).hidden = name !== shown;
    element(`show-${name}`).setAttribute("aria-pressed", String(name === shown));
  }
}

function enable(on: boolean): void {
  for (const name of ["chat", "parity"]) element<HTMLButtonElement>(`show-${name}`).disabled = !on;
  if (!on) showScreen("bundle");
}
