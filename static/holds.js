// @ts-check
/**
 * What this browser holds: all that a script can read here, and each answer the page
 * received, searched for anything that looks like a token. Only findings are kept, no answer.
 */

import { byId, el } from "./dom.js";

/** @typedef {{request: string, status: number, type: string, size: number, found: string | null}} Seen */

const MOST_ANSWERS = 30;
/** A JSON web token starts with the base64url of `{"`; the fields are RFC 6749's and OpenID's. */
const TOKEN_SHAPES = [
  { pattern: /eyJ[A-Za-z0-9_-]{8,}/, name: "a JSON web token" },
  { pattern: /"(?:access|refresh|id)_token"/, name: "a token field" },
];

/** @type {Seen[]} */
let answers = [];

/**
 * What in this text looks like a token, or null.
 * @param {string} text
 */
export function tokenIn(text) {
  return TOKEN_SHAPES.find(({ pattern }) => pattern.test(text))?.name ?? null;
}

/** From here on every answer to a script of this page is looked at. Call it once, first. */
export function watchAnswers() {
  const original = window.fetch;
  window.fetch = async (input, init) => {
    const response = await original(input, init);
    const method = init?.method ?? (input instanceof Request ? input.method : "GET");
    void inspect(method.toUpperCase(), response.clone());
    return response;
  };
}

/** Forgets the answers seen so far. */
export function clearHolds() {
  answers = [];
  byId("answers").replaceChildren();
  byId("stores").replaceChildren();
  byId("verdict").textContent = "";
}

/** Looks at the browser's stores again and shows everything. */
export function showHolds() {
  const stores = [
    { name: "Cookies a script can read", entries: cookies() },
    { name: "localStorage", entries: entriesOf(() => window.localStorage) },
    { name: "sessionStorage", entries: entriesOf(() => window.sessionStorage) },
  ];
  const address = tokenIn(window.location.href);
  byId("stores").replaceChildren(
    ...stores.map(({ name, entries }) => storeRow(name, entries)),
    row("This page’s address", address === null ? "no token found" : address, address),
  );
  byId("answers").replaceChildren(...answers.map(answerRow));
  const found = [
    ...stores.flatMap(({ entries }) => entries.map(({ text }) => tokenIn(text))),
    ...answers.map((answer) => answer.found), address,
  ].filter((finding) => finding !== null);
  byId("verdict").textContent = found.length === 0
    ? `No token found: ${answers.length} ${answers.length === 1 ? "answer" : "answers"} and every store searched.`
    : `Found ${found[0]}. That should not happen: see below.`;
  byId("verdict").dataset.tone = found.length === 0 ? "good" : "bad";
}

/**
 * @param {string} method
 * @param {Response} response
 */
async function inspect(method, response) {
  const url = new URL(response.url);
  const body = await response.arrayBuffer().catch(() => new ArrayBuffer(0));
  const headers = [...response.headers].map((pair) => pair.join(": ")).join("\n");
  answers = [{
    request: `${method} ${url.pathname}${url.search}`,
    status: response.status,
    type: (response.headers.get("Content-Type") ?? "no type").split(";")[0],
    size: body.byteLength,
    found: tokenIn(headers) ?? tokenIn(new TextDecoder().decode(body)),
  }, ...answers].slice(0, MOST_ANSWERS);
  if (!byId("signed-in").hidden) showHolds();
}

/** @typedef {{name: string, text: string}} Entry */

/** @returns {Entry[]} */
function cookies() {
  return document.cookie.split("; ").filter(Boolean).map((text) => ({
    name: text.split("=")[0], text,
  }));
}

/**
 * @param {() => Storage} storage reading the property alone throws where storage is blocked
 * @returns {Entry[]}
 */
function entriesOf(storage) {
  try {
    return Object.entries(storage()).map(([name, value]) => ({ name, text: `${name}=${value}` }));
  } catch {
    return [];
  }
}

/**
 * @param {string} name
 * @param {Entry[]} entries
 */
function storeRow(name, entries) {
  const found = entries.map(({ text }) => tokenIn(text)).find((finding) => finding !== null) ?? null;
  if (entries.length === 0) return row(name, "empty", found);
  const names = entries.map((entry) => entry.name).join(", ");
  return row(name, `${names}: ${found ?? "no token found"}`, found);
}

/**
 * @param {string} name
 * @param {string} text
 * @param {string | null} found
 */
function row(name, text, found) {
  return el("div", { "data-tone": found === null ? "good" : "bad" },
    el("dt", {}, name), el("dd", {}, text));
}

/** @param {Seen} seen */
function answerRow({ request, status, type, size, found }) {
  return el("li", {},
    el("code", { class: "answer-request" }, request),
    el("span", { class: "pill", "data-tone": status < 400 ? "good" : "plain" }, String(status)),
    el("span", { class: "answer-facts" }, `${type}, ${bytes(size)}`),
    el("span", { class: "finding", "data-tone": found === null ? "good" : "bad" },
      found === null ? "no token found" : `${found} found`));
}

/** @param {number} size */
function bytes(size) {
  if (size === 1) return "1 byte";
  return size < 1024 ? `${size} bytes` : `${(size / 1024).toFixed(1)} KiB`;
}
