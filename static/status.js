// @ts-check
/** The page's one line of news: what just happened, and what can be done about it. */

import { BffError, login } from "./bff.js";
import { byId, onClick } from "./dom.js";

/** @type {Record<string, string>} */
const EXPLANATIONS = {
  network_failure: "The server can’t be reached. Check your connection, then try again.",
  unexpected_answer: "The server gave an answer that this page can’t make sense of.",
  not_signed_in: "You are not signed in. Sign in to go on.",
  session_expired: "Your session has ended. Sign in to go on.",
  reauthentication_required: "This needs a fresh sign-in.",
  csrf_required: "The server did not take this request as coming from this page. Reload it.",
  route_not_found: "This server has no such route.",
  session_not_found: "That session has already ended.",
  rate_limited: "That was a lot of requests in a short time. Give it a moment.",
  upstream_unreachable: "The API can’t be reached just now. You are still signed in.",
  upstream_timeout: "The API took too long to answer. You are still signed in.",
  store_unavailable: "Your session can’t be read just now. You have not been signed out.",
  provider_unavailable: "The sign-in service doesn’t answer just now. You have not been signed out.",
};

const DEFAULT_EXPLANATION = "The server refused the request.";
const NEWS_MILLISECONDS = 6000;

/** @type {(() => unknown) | null} */
let pendingAction = null;
let actionLabel = "";
let opensAt = 0;
let clock = 0;

/** Connects the buttons; call it once. */
export function startStatus() {
  onClick("status-action", async () => {
    if (Date.now() < opensAt) return;
    const action = pendingAction;
    close();
    await action?.();
  });
  onClick("status-dismiss", close);
}

/** The pressed button goes away: without this the keyboard would start over at the top. */
function close() {
  dismiss();
  byId("main").focus({ preventScroll: true });
}

/**
 * Good news, spoken by a screen reader; the eye sees it where it happened.
 * @param {string} text
 */
export function announce(text) {
  show(text, "news");
  clock = window.setTimeout(dismiss, NEWS_MILLISECONDS);
}

/**
 * A notice that stays, with something to do.
 * @param {string} text
 * @param {string} label of the button
 * @param {() => unknown} action
 */
export function propose(text, label, action) {
  show(text, "notice");
  offer(label, action, 0);
}

/**
 * Tells of a failure, with its code, and offers the way to try again.
 * @param {unknown} error
 * @param {() => unknown} retry
 */
export function report(error, retry) {
  if (!(error instanceof BffError)) throw error;
  if (error.redirecting) {
    show("Taking you to the sign-in …", "notice");
    return;
  }
  show(EXPLANATIONS[error.code] ?? DEFAULT_EXPLANATION, "failure", error.code);
  if (error.status === 401) offer("Sign in", () => signIn(error.code), 0);
  else offer("Try again", retry, error.retryAfter ?? 0);
}

/** @param {string} code why: a session that is too old or too weak needs a fresh sign-in */
function signIn(code) {
  login(code === "reauthentication_required" ? { prompt: "login" } : {});
}

/** Takes the notice away. */
export function dismiss() {
  show("", "none");
}

/**
 * @param {string} text
 * @param {"none" | "news" | "notice" | "failure"} kind
 */
function show(text, kind, code = "") {
  window.clearTimeout(clock);
  window.clearInterval(clock);
  pendingAction = null;
  byId("notice").dataset.kind = kind;
  byId("status").textContent = text;
  byId("status-code").textContent = code;
  byId("status-code").hidden = code === "";
  byId("status-action").hidden = true;
  byId("status-dismiss").hidden = kind === "none" || kind === "news";
}

/**
 * The button counts down outside the live region, or a screen reader would read each second.
 * @param {string} label
 * @param {() => unknown} action
 * @param {number} waitSeconds
 */
function offer(label, action, waitSeconds) {
  pendingAction = action;
  actionLabel = label;
  opensAt = Date.now() + waitSeconds * 1000;
  byId("status-action").hidden = false;
  if (labelAction() > 0) clock = window.setInterval(labelAction, 1000);
}

function labelAction() {
  const wait = Math.max(0, Math.ceil((opensAt - Date.now()) / 1000));
  byId("status-action").textContent = wait > 0 ? `${actionLabel} in ${wait} s` : actionLabel;
  byId("status-action").classList.toggle("is-waiting", wait > 0);
  if (wait === 0) window.clearInterval(clock);
  return wait;
}
