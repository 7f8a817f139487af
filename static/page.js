// @ts-check
/**
 * The page: asks who is signed in, and shows the one view that fits. What it knows of the
 * user lives in the document alone and is taken out of it whenever the user may be gone.
 */

import * as bff from "./bff.js";
import { createCountdown } from "./countdown.js";
import { byId, el, onClick, time } from "./dom.js";
import { clearHolds, showHolds, watchAnswers } from "./holds.js";
import { clearSessions, loadSessions, startSessions } from "./sessions.js";
import { dismiss, propose, report, startStatus } from "./status.js";
import { clearWeather, loadAdmin, loadForecast } from "./weather.js";

const VIEWS = ["checking", "signed-out", "signed-in", "unavailable"];
const POLL_MILLISECONDS = 120_000;
const RECHECK_MILLISECONDS = 10_000;
/** Claims that are seconds since 1970; shown as a time beside the number. */
const TIME_CLAIMS = new Set(["auth_time", "updated_at"]);

/**
 * Why a session ended, in words.
 * @type {Record<string, string>}
 */
const ENDINGS = {
  signed_out: "You have signed out.",
  revoked: "Your session was ended from elsewhere. Sign in to go on.",
  provider: "Your sign-in service has ended your session. Sign in to go on.",
};
const ENDED = "Your session has ended. Sign in to go on.";

const countdown = createCountdown({
  onWarning: (text) => propose(text, "Stay signed in", () => check({ slide: true })),
  onEnd: () => check(),
});

/** Whom the page shows: the claims as text, or null. */
let shown = /** @type {string | null} */ (null);
let checkedAt = 0;
/** The newest question to the server: an answer to an older one is out of date. */
let asked = 0;

let stopListening = /** @type {(() => void) | null} */ (null);
let endedBy = "";

/** Learns at once what becomes of the session elsewhere. */
function listen() {
  if (stopListening !== null) return;
  endedBy = "";
  stopListening = bff.events({
    onExpiring: (seconds) => countdown.set(seconds),
    onEnded: (reason) => {
      stopListening = null;
      endedBy = reason;
      void check(); // another sign-in of this browser may have taken its place
    },
  });
}

function stopToListen() {
  stopListening?.();
  stopListening = null;
}

/** @param {string} name */
function showView(name) {
  for (const view of VIEWS) byId(view).hidden = view !== name;
  byId("sign-out").hidden = name !== "signed-in";
}

/** Takes everything of the user out of the document. */
function forget() {
  shown = null;
  asked += 1;
  stopToListen();
  countdown.clear();
  clearWeather();
  clearSessions();
  clearHolds();
  for (const id of ["greeting", "avatar", "claims-body"]) byId(id).replaceChildren();
  showView("checking");
}

/**
 * Asks the server who is signed in and shows it.
 * @param {{slide?: boolean}} [options]
 */
async function check({ slide = false } = {}) {
  checkedAt = Date.now();
  asked += 1;
  const question = asked;
  try {
    const user = await bff.user({ slide });
    if (question !== asked) return;
    if (user === null) showSignedOut();
    else showSignedIn(user);
  } catch (error) {
    if (question === asked) showTrouble(error, () => check({ slide }));
  }
}

/** Asks again, but not at every occasion. */
function recheck() {
  if (shown !== null && Date.now() - checkedAt > RECHECK_MILLISECONDS) return check();
  return undefined;
}

function showSignedOut() {
  const ended = shown !== null;
  forget();
  dismiss();
  byId("ended").hidden = !ended;
  byId("ended").textContent = ENDINGS[endedBy] ?? ENDED;
  showView("signed-out");
}

/** @param {bff.User} user */
function showSignedIn(user) {
  const claims = user.claims.filter(({ type }) => !type.startsWith("bff:"));
  const identity = JSON.stringify(claims);
  if (identity !== shown) {
    forget();
    showPerson(user);
    showClaims(claims);
    shown = identity;
    void loadSessions();
  }
  listen();
  showView("signed-in");
  countdown.set(user.expiresIn);
  showHolds();
}

/**
 * Trouble in passing keeps the view; without one, or with its time run out, it is the view.
 * @param {unknown} error
 * @param {() => unknown} retry
 */
function showTrouble(error, retry) {
  const inForce = shown !== null && byId("countdown").textContent !== "00:00";
  if (!inForce && error instanceof bff.BffError) {
    forget();
    showView("unavailable");
  }
  report(error, retry);
}

/** @param {bff.User} user */
function showPerson(user) {
  const name = String(user.get("email") ?? user.get("name") ?? user.get("sub") ?? "you");
  const isAdmin = user.all("cognito:groups").includes("admins");
  byId("greeting").replaceChildren("Hello, ", ...breakable(name));
  byId("avatar").textContent = name.slice(0, 1).toUpperCase();
  byId("admin").dataset.role = isAdmin ? "admin" : "other";
  byId("call-admin").hidden = !isAdmin;
  byId("admin-for-admins").hidden = !isAdmin;
  byId("admin-for-others").hidden = isAdmin;
}

/**
 * A narrow screen may break an address after its at sign.
 * @param {string} name
 */
function breakable(name) {
  return name.split(/(?<=@)/).flatMap((part, index) => (index > 0 ? [el("wbr"), part] : [part]));
}

/** @param {bff.Claim[]} claims */
function showClaims(claims) {
  byId("claims-body").replaceChildren(...claims.map(({ type, value }) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const cell = el("td", {}, text);
    if (TIME_CLAIMS.has(type)) {
      cell.append(el("span", { class: "aside" }, time(Number(value) * 1000)));
    }
    return el("tr", {}, el("th", { scope: "row" }, type), cell);
  }));
}

async function signOut() {
  dismiss();
  stopToListen(); // this tab knows, and is about to leave
  try {
    await bff.logout();
    forget();
  } catch (error) {
    if (shown !== null) listen();
    report(error, signOut);
  }
}

/** @param {() => Promise<boolean>} load a call that may have extended the session */
async function callApi(load) {
  dismiss();
  if (await load()) await recheck();
}

watchAnswers();
startStatus();
startSessions();
onClick("call-weather", () => callApi(loadForecast));
onClick("call-admin", () => callApi(loadAdmin));
onClick("try-admin", () => callApi(loadAdmin));
onClick("extend", () => check({ slide: true }));
onClick("sign-out", signOut);

// The browser keeps pages to go back to: what it keeps must hold nothing of the user, who
// may have signed out by then.
window.addEventListener("pagehide", forget);
window.addEventListener("pageshow", (event) => {
  if (event.persisted) void check();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") void recheck();
});
window.setInterval(() => {
  if (document.visibilityState === "visible") void recheck();
}, POLL_MILLISECONDS);

void check({ slide: true });
