// @ts-check
/** Small helpers around the document. Text goes in as text only, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * The element with this id; the page and its scripts are one, so a missing one is a mistake.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`The page has no element with the id "${id}".`);
  return element;
}

/**
 * A new HTML element.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * A new SVG element.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {Node[]} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/**
 * Runs an action at each click, one at a time. The button stays focusable while it works: a
 * disabled one would drop the keyboard's focus.
 * @param {string} id
 * @param {() => unknown} action
 */
export function onClick(id, action) {
  const button = byId(id);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      await action();
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/**
 * A `<time>` in the reader's own words, or the text as it came where it is no time.
 * @param {unknown} value RFC 3339, or milliseconds
 * @returns {Node | string}
 */
export function time(value) {
  const date = new Date(/** @type {string | number} */ (value));
  if (Number.isNaN(date.getTime())) return String(value ?? "unknown");
  return el("time", { datetime: date.toISOString() }, moment.format(date));
}
