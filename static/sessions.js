// @ts-check
/** The user's own sessions, each of which can be ended from here. */

import * as bff from "./bff.js";
import { byId, el, onClick, time } from "./dom.js";
import { announce, report } from "./status.js";

/** @typedef {{id: string, current: boolean, created: string, last_seen: string,
 *   browser?: string, address?: string}} Session */

let epoch = 0;

/** Connects the button; call it once. */
export function startSessions() {
  onClick("end-others", () => end("/bff/sessions", "All other sessions have ended."));
}

/** Shows the list; where the server keeps none for its users, there is no such section. */
export async function loadSessions() {
  const started = epoch;
  try {
    const response = await bff.fetch("/bff/sessions");
    const sessions = response.ok ? await listIn(response) : [];
    if (started === epoch) show(sessions);
  } catch (error) {
    if (started !== epoch) return;
    clearSessions();
    if (!isAbsent(error)) report(error, loadSessions);
  }
}

/** Takes the list away, and drops one that is still on its way. */
export function clearSessions() {
  epoch += 1;
  byId("sessions").hidden = true;
  byId("session-list").replaceChildren();
}

/**
 * @param {Response} response
 * @returns {Promise<Session[]>}
 */
async function listIn(response) {
  const sessions = await response.json().catch(() => null);
  if (!Array.isArray(sessions)) throw new bff.BffError("unexpected_answer", response.status);
  return sessions;
}

/** @param {unknown} error */
function isAbsent(error) {
  return error instanceof bff.BffError && error.status === 404;
}

/** @param {Session[]} sessions */
function show(sessions) {
  byId("sessions").hidden = sessions.length === 0;
  byId("end-others").hidden = sessions.length < 2;
  const current = sessions.filter((session) => session.current);
  const others = sessions.filter((session) => !session.current);
  byId("session-list").replaceChildren(...[...current, ...others].map(item));
}

/** @param {Session} session */
function item({ id, current, created, last_seen: lastSeen, browser, address }) {
  const name = browser || "Unknown browser";
  return el("li", {},
    el("div", { class: "session-facts" },
      el("strong", {}, name),
      el("span", {}, "Signed in ", time(created)),
      el("span", {}, "Last seen ", time(lastSeen), address ? ` from ${address}` : "")),
    current ? el("span", { class: "pill", "data-tone": "good" }, "This browser") : endButton(id, name));
}

/**
 * @param {string} id
 * @param {string} name
 */
function endButton(id, name) {
  const button = el("button", { type: "button", class: "button quiet", "aria-label": `End the session in ${name}` }, "End");
  button.addEventListener("click", () => {
    button.setAttribute("aria-disabled", "true");
    return end(`/bff/sessions/${encodeURIComponent(id)}`, `The session in ${name} has ended.`);
  }, { once: true });
  return button;
}

/**
 * @param {string} path
 * @param {string} done what to say then
 */
async function end(path, done) {
  try {
    await bff.fetch(path, { method: "DELETE" });
    announce(done);
  } catch (error) {
    if (!isAbsent(error)) report(error, () => end(path, done));
  }
  await loadSessions();
  // The button that had the focus is gone with its session.
  byId("sessions-title").focus();
}
