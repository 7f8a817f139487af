// @ts-check
/** The forecast: `/weather` as cards and as it came, and the part for administrators. */

import * as bff from "./bff.js";
import { byId, el, svg } from "./dom.js";
import { announce, report } from "./status.js";

/** @typedef {{date: string, temperatureC: number, summary: string}} Day */

const COLDEST = -20;
const HOTTEST = 45;
const TUBE = { top: 5, height: 34 };
const BANDS = [
  { below: 3, name: "freezing" }, { below: 13, name: "cool" }, { below: 22, name: "mild" },
  { below: 30, name: "warm" }, { below: Infinity, name: "hot" },
];

let epoch = 0;

const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long", timeZone: "UTC" });
const dayAndMonth = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", timeZone: "UTC",
});

/**
 * Asks the API for the forecast and shows what it says.
 * @returns {Promise<boolean>} whether the API was reached
 */
export async function loadForecast() {
  return call("/weather", loadForecast, (answer, days) => {
    byId("forecast").replaceChildren(...days.map(card));
    byId("raw-json").hidden = false;
    byId("raw-json-body").textContent = answer.text;
    byId("forecast-answer").replaceChildren(...summary(answer));
    announce(days.length > 0 ? `The forecast is here: ${days.length} days.` : answer.line);
  });
}

/**
 * Asks for the administrators' part, and shows the API's own answer, a refusal too.
 * @returns {Promise<boolean>} whether the API was reached
 */
export async function loadAdmin() {
  return call("/weather/admin", loadAdmin, (answer) => {
    byId("admin-result").hidden = false;
    byId("admin-answer").replaceChildren(...summary(answer));
    byId("admin-body").textContent = answer.text || "(no body)";
    announce(`The API answered ${answer.line}.`);
  });
}

/** Takes away all that the API said, and drops what is still on its way. */
export function clearWeather() {
  epoch += 1;
  for (const id of ["forecast", "raw-json-body", "forecast-answer", "admin-answer", "admin-body"]) {
    byId(id).replaceChildren();
  }
  byId("raw-json").hidden = true;
  byId("raw-json").removeAttribute("open");
  byId("admin-result").hidden = true;
}

/** @typedef {{ok: boolean, line: string, challenge: string | null, text: string}} Answer */

/**
 * @param {string} path
 * @param {() => unknown} retry
 * @param {(answer: Answer, days: Day[]) => void} showAnswer
 */
async function call(path, retry, showAnswer) {
  const started = epoch;
  try {
    const { response, body } = await ask(path);
    // The answer to somebody who has signed out meanwhile is nobody's to see.
    if (started !== epoch) return false;
    const data = parsed(body);
    showAnswer({
      ok: response.ok,
      line: `${response.status} ${reason(response)}`.trim(),
      challenge: response.headers.get("WWW-Authenticate"),
      text: data === undefined ? body : JSON.stringify(data, null, 2),
    }, response.ok && Array.isArray(data) ? data.filter(isDay) : []);
    return true;
  } catch (error) {
    if (started === epoch) report(error, retry);
    return false;
  }
}

/** @param {string} path */
async function ask(path) {
  const response = await bff.fetch(path, { headers: { Accept: "application/json" } });
  try {
    return { response, body: await response.text() };
  } catch (cause) {
    throw new bff.BffError("network_failure", 0, { cause });
  }
}

/** @param {Response} response HTTP/2 and later have no reason phrase */
function reason({ status, statusText }) {
  const usual = new Map([[200, "OK"], [401, "Unauthorized"], [403, "Forbidden"]]);
  return statusText || usual.get(status) || "";
}

/** @param {string} body */
function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

/** @param {any} value @returns {value is Day} */
function isDay(value) {
  return typeof value?.temperatureC === "number" && !Number.isNaN(Date.parse(value.date));
}

/** @param {Answer} answer */
function summary({ ok, line, challenge }) {
  const pill = el("span", { class: "pill", "data-tone": ok ? "good" : "bad" }, line);
  if (challenge === null) return [pill];
  return [pill, el("code", { class: "challenge" }, `WWW-Authenticate: ${challenge}`)];
}

/** @param {Day} day */
function card({ date, temperatureC, summary: words }) {
  const when = new Date(date);
  const band = BANDS.find(({ below }) => temperatureC < below)?.name ?? "mild";
  return el(
    "li", { class: "day", "data-band": band },
    el("h3", {}, el("time", { datetime: date }, weekday.format(when))),
    el("p", { class: "day-date" }, dayAndMonth.format(when)),
    el("p", { class: "day-temperature" }, thermometer(temperatureC),
      el("span", {}, degrees(temperatureC), el("span", { class: "unit" }, "°C"))),
    el("p", { class: "day-words" }, String(words ?? "")),
  );
}

/** @param {number} celsius */
function degrees(celsius) {
  return String(Math.round(celsius)).replace("-", "\u2212");
}

/** @param {number} celsius */
function thermometer(celsius) {
  const share = (Math.min(HOTTEST, Math.max(COLDEST, celsius)) - COLDEST) / (HOTTEST - COLDEST);
  const filled = Math.round(TUBE.height * share * 10) / 10;
  return svg(
    "svg", { viewBox: "0 0 18 56", width: 18, height: 56, "aria-hidden": "true", class: "thermometer" },
    svg("rect", { class: "glass", x: 4.5, y: 2, width: 9, height: 42, rx: 4.5 }),
    svg("circle", { class: "glass", cx: 9, cy: 46, r: 8 }),
    svg("rect", {
      class: "mercury", x: 7, y: TUBE.top + TUBE.height - filled, width: 4, height: filled + 6, rx: 2,
    }),
    svg("circle", { class: "mercury", cx: 9, cy: 46, r: 5 }),
  );
}
