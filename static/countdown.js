// @ts-check
/** The time that is left of the session, as a clock and as a ring that empties. */

import { byId } from "./dom.js";

const WARNINGS = [
  { below: 60, text: "Your session ends in less than a minute." },
  { below: 300, text: "Your session ends in less than five minutes." },
];

/**
 * A countdown in `#countdown` and `#countdown-ring`.
 * @param {{onWarning: (text: string) => void, onEnd: () => void}} handlers `onEnd` is called
 *   once each time the clock reaches zero
 */
export function createCountdown({ onWarning, onEnd }) {
  let endsAt = 0;
  let longest = 1;
  let warned = Infinity;
  let clock = 0;

  function tick() {
    // By the wall clock: a machine that slept must not show time that has passed.
    const seconds = Math.max(0, Math.ceil((endsAt - Date.now()) / 1000));
    byId("countdown").textContent = clockFace(seconds);
    byId("countdown-ring").setAttribute("stroke-dasharray", `${(100 * seconds) / longest} 100`);
    const warning = WARNINGS.find(({ below }) => seconds < below);
    if (seconds === 0) {
      stop();
      // A second later: the server cuts its seconds off, and must not be asked again and again until then.
      clock = window.setTimeout(onEnd, 1000);
    } else if (warning && warning.below < warned) {
      warned = warning.below;
      onWarning(warning.text);
    }
  }

  function stop() {
    window.clearInterval(clock);
    clock = 0;
  }

  /** @param {number} seconds that are left, as the server just said */
  function set(seconds) {
    endsAt = Date.now() + seconds * 1000;
    longest = Math.max(longest, seconds, 1);
    if (seconds >= WARNINGS[WARNINGS.length - 1].below) warned = Infinity;
    stop();
    clock = window.setInterval(tick, 1000);
    tick();
  }

  function clear() {
    stop();
    longest = 1;
    warned = Infinity;
    byId("countdown").textContent = "";
  }

  return { set, clear };
}

/** @param {number} seconds */
function clockFace(seconds) {
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const rest = `${two(minutes)}:${two(seconds % 60)}`;
  return hours > 0 ? `${hours}:${rest}` : rest;
}
