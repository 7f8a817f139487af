// @ts-check
/**
 * A browser's side of the BFF: who is signed in, sign in, sign out, and a `fetch` that the
 * BFF accepts. It stores nothing of the user; the only thing it keeps is the time of the last
 * sign-in it started by itself, in sessionStorage, so that a failing sign-in cannot loop.
 *
 * @typedef {{type: string, value: unknown}} Claim
 * @typedef {{
 *   claims: Claim[],
 *   get: (type: string) => unknown,
 *   all: (type: string) => unknown[],
 *   logoutUrl: string,
 *   expiresIn: number,
 * }} User  `get` gives a claim's first value, `all` every value; `expiresIn` is in seconds.
 */

const GUARD_KEY = "bff:sign-in-started";
const GUARD_MILLISECONDS = 30_000;
const MAX_RETURN_URL = 2048;

const SIGN_IN_CODES = new Set(["not_signed_in", "session_expired", "reauthentication_required"]);

/** What the BFF itself may answer; an upstream's own problem document is none of ours. */
const BFF_CODES = new Set([
  ...SIGN_IN_CODES, "csrf_required", "bad_request", "route_not_found", "session_not_found",
  "method_not_allowed", "body_too_large", "headers_too_large", "rate_limited",
  "upstream_unreachable", "upstream_timeout", "store_unavailable", "provider_unavailable",
]);

/** A failure that is the BFF's or the network's, never the upstream's. */
export class BffError extends Error {
  /**
   * @param {string} code the BFF's code, or `network_failure`, or `unexpected_answer`
   * @param {number} status the HTTP status; 0 where no answer came
   * @param {{retryAfter?: number | null, redirecting?: boolean, cause?: unknown}} [more]
   */
  constructor(code, status, { retryAfter = null, redirecting = false, cause } = {}) {
    super(`${code} (${status})`, { cause });
    this.name = "BffError";
    this.code = code;
    this.status = status;
    /** Seconds that the server asks to wait, or null. */
    this.retryAfter = retryAfter;
    /** True where the browser is on its way to sign in: show nothing more. */
    this.redirecting = redirecting;
  }
}

/**
 * Who is signed in. Extends the session unless told not to; never redirects.
 * @param {{slide?: boolean, signal?: AbortSignal}} [options]
 * @returns {Promise<User | null>} null when signed out
 * @throws {BffError}
 */
export async function user({ slide = true, signal } = {}) {
  const response = await send(slide ? "/bff/user" : "/bff/user?slide=false", { signal });
  if (response.status === 401) return null;
  const claims = await json(response);
  if (!Array.isArray(claims)) throw new BffError("unexpected_answer", response.status);
  /** @param {string} type */
  const all = (type) => claims.filter((claim) => claim.type === type).map(({ value }) => value);
  return {
    claims,
    all,
    get: (type) => all(type)[0],
    logoutUrl: String(all("bff:logout_url")[0] ?? "/"),
    expiresIn: Number(all("bff:session_expires_in")[0] ?? 0),
  };
}

/**
 * Leaves this page for the sign-in.
 * @param {{returnUrl?: string, prompt?: string, loginHint?: string, uiLocales?: string,
 *   maxAge?: number, acrValues?: string}} [options] `returnUrl`: a path of this origin, by
 *   default the current page; `maxAge` in seconds
 */
export function login({ returnUrl, prompt, loginHint, uiLocales, maxAge, acrValues } = {}) {
  const parameters = {
    prompt, login_hint: loginHint, ui_locales: uiLocales, max_age: maxAge, acr_values: acrValues,
  };
  const url = new URL("/bff/login", location.origin);
  url.searchParams.set("returnUrl", returnUrl ?? currentPath());
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  location.assign(url);
}

/**
 * Ends the session, then leaves this page for the provider's sign-out.
 * @throws {BffError} where the session could not be ended (with `network_failure`: perhaps not)
 */
export async function logout() {
  const response = await send("/bff/logout", { method: "POST" });
  const answer = await json(response);
  if (typeof answer?.logout_url !== "string") {
    throw new BffError("unexpected_answer", response.status);
  }
  location.assign(new URL(answer.logout_url, location.origin));
}

/**
 * `fetch` for this origin's API routes. Other origins get the browser's own, untouched: to
 * them the header would be a needless preflight, and their 401 is not ours to act on.
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} whatever the upstream answered, its errors included
 * @throws {BffError} where the BFF refused or failed, or no answer came
 */
async function bffFetch(input, init) {
  const target = new URL(input instanceof Request ? input.url : input, document.baseURI);
  if (target.origin !== location.origin) return window.fetch(input, init);
  const response = await send(input, init);
  const problem = await bffProblem(response);
  if (problem === null) return response;
  const mustSignIn = response.status === 401 && SIGN_IN_CODES.has(problem.code);
  throw failure(response, problem.code, mustSignIn && signInOnce(problem.login_url));
}
export { bffFetch as fetch };

/**
 * Listens to what becomes of the session, wherever that is decided: in another tab, by an
 * administrator, by the sign-in service. Listening does not extend it. A page that nobody sees
 * does not listen: a browser has few connections to a server without HTTP/2.
 * @param {{onExpiring?: (seconds: number) => void, onEnded?: (reason: string) => void}} handlers
 *   `onExpiring`: the session ends in so many seconds unless it is extended; `onEnded`: it has
 *   ended (`signed_out`, `revoked`, `expired`, `provider`, or "" where the page was not told),
 *   and nothing more will come
 * @returns {() => void} stops listening
 */
export function events({ onExpiring = () => {}, onEnded = () => {} } = {}) {
  /** @type {EventSource | null} */
  let source = null;
  let clock = 0;
  let failures = 0;

  function open() {
    close();
    const opened = new EventSource("/bff/events");
    source = opened;
    opened.addEventListener("open", () => { failures = 0; });
    opened.addEventListener("session-expiring", ({ data }) => onExpiring(JSON.parse(data).seconds));
    opened.addEventListener("session-ended", ({ data }) => end(JSON.parse(data).reason));
    opened.addEventListener("error", () => {
      // The browser comes back by itself after a break, but not after an answer that is none.
      if (source === opened && opened.readyState === EventSource.CLOSED) void refused();
    });
  }

  async function refused() {
    close();
    failures += 1;
    const asked = failures;
    const gone = await user({ slide: false }).then((found) => found === null, () => false);
    if (failures !== asked || source !== null || stopped) return;
    if (gone) end("");
    else clock = window.setTimeout(follow, Math.min(60_000, 2_000 * 2 ** failures));
  }

  function close() {
    window.clearTimeout(clock);
    source?.close();
    source = null;
  }

  function follow() {
    if (document.visibilityState === "hidden") close();
    else if (source === null) open();
  }

  let stopped = false;
  function stop() {
    stopped = true;
    close();
    document.removeEventListener("visibilitychange", follow);
  }

  /** @param {string} reason */
  function end(reason) {
    stop();
    onEnded(reason);
  }

  document.addEventListener("visibilitychange", follow);
  follow();
  return stop;
}

/**
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 */
async function send(input, init = {}) {
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : {}));
  headers.set("X-CSRF", "1");
  try {
    return await window.fetch(input, { ...init, headers, credentials: "same-origin" });
  } catch (cause) {
    if (cause instanceof Error && cause.name === "AbortError") throw cause;
    // A call that the way to the sign-in cut off is no trouble of the network's.
    throw new BffError("network_failure", 0, { redirecting, cause });
  }
}

/** @param {Response} response */
async function json(response) {
  if (!response.ok) {
    const problem = await bffProblem(response);
    throw failure(response, problem?.code ?? "unexpected_answer");
  }
  try {
    return await response.json();
  } catch (cause) {
    throw new BffError("unexpected_answer", response.status, { cause });
  }
}

/**
 * The BFF's own problem document, or null; the response can still be read.
 * @param {Response} response
 * @returns {Promise<{code: string, login_url?: unknown} | null>}
 */
async function bffProblem(response) {
  const type = response.headers.get("Content-Type") ?? "";
  if (response.ok || !/^application\/problem\+json\s*(;|$)/i.test(type)) return null;
  // After a redirect to elsewhere the answer is not the BFF's, whatever it says of itself.
  if (new URL(response.url).origin !== location.origin) return null;
  try {
    const problem = await response.clone().json();
    return BFF_CODES.has(problem?.code) ? problem : null;
  } catch {
    return null;
  }
}

/**
 * @param {Response} response
 * @param {string} code
 */
function failure(response, code, redirecting = false) {
  const retryAfter = retrySeconds(response.headers.get("Retry-After"));
  return new BffError(code, response.status, { retryAfter, redirecting });
}

/** @param {string | null} value seconds or an HTTP date (RFC 9110 section 10.2.3) */
function retrySeconds(value) {
  if (value === null) return null;
  if (/^\d+$/.test(value.trim())) return Number(value);
  const seconds = Math.ceil((Date.parse(value) - Date.now()) / 1000);
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}

let redirecting = false;
// Back from the provider's page: the browser may revive this one as it was left.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) redirecting = false;
});

/**
 * Starts one sign-in, however many calls fail at once.
 * @param {unknown} loginUrl as the BFF gave it
 * @returns {boolean} whether the browser is on its way
 */
function signInOnce(loginUrl) {
  if (redirecting) return true;
  const url = new URL("/bff/login", location.origin);
  // Only the query is taken over: an upstream that imitates the problem document must not
  // be able to send the user elsewhere.
  if (typeof loginUrl === "string" && loginUrl.includes("?")) {
    url.search = loginUrl.slice(loginUrl.indexOf("?"));
  }
  url.searchParams.set("returnUrl", currentPath());
  redirecting = claimRedirect();
  if (redirecting) location.assign(url);
  return redirecting;
}

/** Without storage there is no guard against a loop, so there is no redirect either. */
function claimRedirect() {
  try {
    const age = Date.now() - Number(sessionStorage.getItem(GUARD_KEY) ?? 0);
    if (age >= 0 && age < GUARD_MILLISECONDS) return false;
    sessionStorage.setItem(GUARD_KEY, String(Date.now()));
    return true;
  } catch {
    return false;
  }
}

/** The current page as a `returnUrl` that the BFF takes. */
function currentPath() {
  const { pathname, search, hash } = location;
  const refused = /^(\/[/\\]|\/bff(\/|$))/;
  return [pathname + search + hash, pathname + search, pathname].find(
    (path) => path.length <= MAX_RETURN_URL && !refused.test(path),
  ) ?? "/";
}
