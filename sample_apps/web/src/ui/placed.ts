/** Bundles that lie beside the page, as `satchel embed` puts them there. */

const FOLDER = "bundles/";

/** Their addresses relative to the page; none where the server has no listing. */
export async function placedBundles(): Promise<string[]> {
  const response = await fetch(new URL(`${FOLDER}index.json`, document.baseURI), { cache: "no-store" }).catch(() => null);
  if (!response?.ok) return [];
  const listing: unknown = await response.json().catch(() => null);
  const names = (listing as { bundles?: unknown } | null)?.bundles;
  return Array.isArray(names) ? names.filter(isName).map((name) => `${FOLDER}${name}`) : [];
}

/** A folder's name, and no way out of the folder that it lies in. */
function isName(value: unknown): value is string {
  return typeof value === "string" && /^[\w.+-]+\.satchel$/.test(value);
}
