/** Opens a bundle: every file is the one that was exported. See runtime/FORMAT.md, "Rules for the whole folder". */

import { bundleError, reasonOf, SatchelError, throwIfCancelled } from "./errors";
import { readManifest, type FileEntry, type Manifest } from "./manifest";
import { decodeUtf8 } from "./strict-json";

/** Where a bundle's files come from: a server, a folder picker, the browser's storage, a disk. */
export interface BundleSource {
  /** For messages and the list of bundles, such as "SmolLM2-135M-Instruct-pixel-9.satchel". */
  readonly name: string;
  /** Every file with its size, manifest.json included; null where a source cannot list, as a web server. */
  list(): Promise<Map<string, number> | null>;
  /** The whole content; `received` is told how many bytes have come since it was last told. */
  read(path: string, received?: (bytes: number) => void, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
}

export interface OpenOptions {
  /** Hash every file. Without it the names and sizes are still checked: for a bundle that was verified when stored. */
  verify?: boolean;
  progress?: (done: number, total: number) => void;
  /** Given each file when it is verified, so that one reading serves for checking and for storing. */
  onFile?: (entry: FileEntry, bytes: Uint8Array<ArrayBuffer>) => Promise<void>;
  signal?: AbortSignal;
}

const MANIFEST = "manifest.json";
const UNLISTED = new Set([MANIFEST, "parity.json"]);
const IGNORED = ".DS_Store"; // left by the Finder wherever it looks
const LARGEST_MANIFEST = 16 << 20; // bytes; a real one has some 60 kB

/** An opened bundle. */
export class Bundle {
  constructor(
    readonly source: BundleSource,
    readonly manifest: Manifest,
    readonly manifestBytes: Uint8Array<ArrayBuffer>,
    /** sha256 of manifest.json, which stands for the whole bundle. */
    readonly id: string,
  ) {}

  has(path: string): boolean {
    return this.manifest.files.some((file) => file.path === path);
  }

  /** Bytes of all listed files. */
  get bytes(): number {
    return this.manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  }

  /** A listed file. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.manifest.files.find((file) => file.path === path);
    if (!entry) throw bundleError("the bundle has no such file", { got: path, hint: "export the bundle again" });
    return readListed(this.source, entry);
  }

  /** A listed UTF-8 file, or null if the bundle has none of that name. */
  async text(path: string): Promise<string | null> {
    if (!this.has(path)) return null;
    const bytes = await this.read(path);
    try {
      return decodeUtf8(bytes);
    } catch (error) {
      const details = { got: reasonOf(error), hint: "export the bundle again" };
      throw bundleError(`${path} cannot be read as text`, details);
    }
  }
}

/** Opens a bundle and checks that it is whole. Nothing in it is executed. Throws a BundleError. */
export async function openBundle(source: BundleSource, options: OpenOptions = {}): Promise<Bundle> {
  const { verify = true, progress = () => {}, onFile, signal } = options;
  const bytes = await readManifestBytes(source, signal);
  const manifest = readManifest(bytes);
  checkNames(await source.list(), manifest.files);
  const bundle = new Bundle(source, manifest, bytes, await sha256(bytes));
  if (!verify) return bundle;
  let done = 0;
  const received = (count: number) => progress((done += count), bundle.bytes);
  progress(0, bundle.bytes);
  for (const entry of manifest.files) {
    throwIfCancelled(signal);
    const content = await readListed(source, entry, received, signal);
    const found = await sha256(content);
    if (found !== entry.sha256) throw altered(entry, "sha256", found, entry.sha256);
    await onFile?.(entry, content);
  }
  return bundle;
}

/** sha256 in hexadecimal. The browser has it only where a page is trusted: https or localhost. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  if (!globalThis.crypto?.subtle) {
    const hint = "open this page over https, or from localhost";
    throw bundleError("files cannot be checked on a page that came over plain http", { hint });
  }
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function readManifestBytes(source: BundleSource, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  const hint = "give the folder <model>-<device>.satchel that `satchel export` wrote";
  let bytes;
  try {
    bytes = await source.read(MANIFEST, undefined, signal);
  } catch (error) {
    throwIfCancelled(signal);
    throw bundleError("not a bundle: manifest.json cannot be read", { got: reasonOf(error), hint });
  }
  if (bytes.length > LARGEST_MANIFEST) throw bundleError("manifest.json is too large", { got: bytes.length, hint });
  return bytes;
}

function checkNames(found: Map<string, number> | null, files: FileEntry[]): void {
  if (found === null) return; // a server cannot be asked what else it has; every listed file is fetched and hashed
  const hint = "copy the bundle again, or export it again";
  const missing = files.filter((file) => !found.has(file.path)).map((file) => file.path);
  if (missing.length) throw bundleError("files are missing from the bundle", { got: `no ${missing.slice(0, 5)}`, hint });
  const listed = new Set(files.map((file) => file.path));
  const extra = [...found.keys()].filter((p) => !listed.has(p) && !UNLISTED.has(p) && !isIgnored(p));
  if (extra.length) throw bundleError("files that the manifest does not list", { got: extra.slice(0, 5), hint });
  for (const entry of files) {
    const size = found.get(entry.path);
    if (size !== entry.bytes) throw altered(entry, "size", size, entry.bytes);
  }
}

function isIgnored(path: string): boolean {
  return path.split("/").at(-1) === IGNORED;
}

async function readListed(
  source: BundleSource,
  entry: FileEntry,
  received?: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  let content;
  try {
    content = await source.read(entry.path, received, signal);
  } catch (error) {
    throwIfCancelled(signal);
    if (error instanceof SatchelError) throw error;
    throw bundleError(`${entry.path} cannot be read`, { got: reasonOf(error), hint: "copy the bundle again" });
  }
  if (content.length !== entry.bytes) throw altered(entry, "size", content.length, entry.bytes);
  return content;
}

function altered(entry: FileEntry, what: string, got: unknown, wanted: unknown): SatchelError {
  const hint = "the file was altered or damaged: copy the bundle again, or export it again";
  return bundleError(`${entry.path}: its ${what} is not the manifest's`, { got, wanted, hint });
}
