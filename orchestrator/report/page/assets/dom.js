// Elements, and numbers as people read them. Text always becomes a text node, never markup.

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `class`, listeners such as `onclick`, and attributes; false leaves one out
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {(Child | Child[])[]} children
 */
export function append(element, children) {
  for (const child of /** @type {Child[]} */ (children.flat(3))) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/**
 * Make an SVG element.
 * @param {string} tag
 * @param {Record<string, any>} attributes
 * @param {...(Element | string)} children
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/**
 * Return text in which characters that cannot be seen, or that turn the line around, are named.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(CONTROL, (character) => {
    const code = /** @type {number} */ (character.codePointAt(0));
    return code < 32 ? String.fromCharCode(0x2400 + code) : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/**
 * Text for the charts library, which would read a few tags as markup.
 * @param {string} text
 */
export const plain = (text) => visible(String(text)).replaceAll("&", "＆").replaceAll("<", "‹").replaceAll(">", "›");

const MINUS = "−";

/** @param {number} value @param {number} [digits] */
export const fixed = (value, digits = 1) => value.toFixed(digits).replace(/^-(?=[0.]+$)/, "").replace("-", MINUS);

/** @param {number} value @param {number} [digits] */
export const signed = (value, digits = 1) => (value > 0 ? "+" : "") + fixed(value, digits);

/** @param {number | null | undefined} value @param {number} [digits] */
export const percent = (value, digits = 1) =>
  value === null || value === undefined ? "–" : `${fixed(100 * value, digits)}%`;

/** A number of any size. @param {number | null | undefined} value */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(1).replaceAll("-", MINUS);
  if (Number.isInteger(value)) return value.toLocaleString("en-US").replace("-", MINUS);
  return fixed(value, size < 1 ? 3 : size < 100 ? 2 : 1);
}

/** The same without zeros at the end. @param {number | null | undefined} value */
export const brief = (value) => short(value).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

/** @param {number} p */
export const pValue = (p) => (p < 1e-4 ? "p < 0.0001" : `p = ${p.toPrecision(2)}`);

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${fixed(seconds, seconds < 10 ? 1 : 0)} s`;
  const minutes = seconds / 60;
  if (minutes < 90) return `${fixed(minutes, minutes < 10 ? 1 : 0)} minutes`;
  const hours = minutes / 60;
  return hours < 48 ? `${fixed(hours)} hours` : `${fixed(hours / 24)} days`;
}

/** @param {number} count @param {string} noun */
export const plural = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
