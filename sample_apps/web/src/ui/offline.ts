/** Has the service worker keep the app for use offline, and give the page the isolation that threads need. */

const RELOADED = "satchel-reloaded";

export async function startOffline(): Promise<void> {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register(new URL("sw.js", document.baseURI), { scope: "./" });
  await navigator.serviceWorker.ready;
  // Servers that cannot be told to send the two headers send a page of one thread; served by the worker it has more.
  if (crossOriginIsolated || sessionStorage.getItem(RELOADED) || location.search) return;
  sessionStorage.setItem(RELOADED, "yes");
  location.reload();
}
