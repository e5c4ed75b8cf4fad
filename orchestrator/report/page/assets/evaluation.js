// The report of `rayzero eval`: models side by side, in figures and in what they wrote.

import { brief, fixed, h, pValue, percent, plural, short, signed, visible } from "./dom.js";
import { chartSection } from "./learning.js";

/** @typedef {{mean: number, low: number | null, high: number | null}} Figure */

/** @param {any} data */
export function evaluationPage({ evaluation }) {
  const { columns, rows, problems, charts } = evaluation;
  const heads = columns.map((/** @type {[string, string]} */ [model, format]) => h("th", { scope: "col" }, visible(model), h("br"), format));
  const nothing = { steps: [], series: {}, events: [] };
  return [
    h("section", { class: "hero" }, h("p", { class: "eyebrow" }, "evaluation"),
      h("h1", {}, [...new Set(columns.map((/** @type {string[]} */ [model]) => visible(model)))].join(" against ")),
      h("p", { class: "lead" }, `${plural(problems, "held-out problem")}, the same for all. 95% intervals over problems stand in brackets.`)),
    h("section", {}, h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), heads)),
      h("tbody", {}, rows.map((/** @type {any} */ row) => h("tr", {}, h("th", { scope: "row" }, row.title), row.cells.map((/** @type {any} */ value) => figureCell(value, row.is_rate))))))),
      differences(evaluation)),
    charts.length > 0 && chartSection(nothing, { title: "Where they differ", charts }),
  ];
}

/** @param {Figure | number | null} value @param {boolean} isRate */
function figureCell(value, isRate) {
  const shown = (/** @type {number} */ each) => (isRate ? percent(each) : short(each));
  if (value === null || value === undefined) return h("td", {}, "–");
  if (typeof value === "number") return h("td", {}, shown(value));
  const end = (/** @type {number | null} */ each) => (each === null ? "–" : isRate ? fixed(100 * each) : short(each));
  return h("td", {}, shown(value.mean), h("span", { class: "half" }, ` [${end(value.low)}, ${end(value.high)}]`));
}

/** @param {any} evaluation */
function differences({ columns, differences: found, verdicts }) {
  const items = found.map((/** @type {any} */ each, /** @type {number} */ n) => each && columns[n][0] !== columns[0][0] && h("li", {},
    h("b", {}, `${visible(columns[n][0])}, ${columns[n][1]}, against ${visible(columns[0][0])}`),
    `: pass@1 ${signed(100 * each.mean)} points [${signed(100 * each.low)}, ${signed(100 * each.high)}], ${pValue(each.p_value)}, problem by problem.`));
  const said = verdicts.map((/** @type {string | null} */ verdict, /** @type {number} */ n) => verdict && h("li", {}, `Training ${visible(columns[n][0])} in the format ${columns[n][1]}: ${verdict}.`));
  return [items, said].map((list) => list.some(Boolean) && h("ul", { class: "plainlist" }, list));
}

/** @param {any} data */
export function answersPage({ evaluation }) {
  const { questions, columns, kept, of, rule } = evaluation;
  const right = (/** @type {any} */ each) => (each ? each.completions.filter((/** @type {any} */ one) => one.right).length / each.completions.length : 0);
  const gap = (/** @type {any} */ question) => right(question.answers[question.answers.length - 1]) - right(question.answers[0]);
  /** @type {Record<string, [string, (a: any, b: any) => number]>} */
  const orders = {
    asked: ["as they were asked", () => 0],
    gained: [`${visible(columns[columns.length - 1][0])} is better`, (a, b) => gap(b) - gap(a)],
    lost: [`${visible(columns[columns.length - 1][0])} is worse`, (a, b) => gap(a) - gap(b)],
  };
  let at = 0;
  let found = questions;
  const place = h("div", {});
  const count = h("span", { role: "status" });
  const order = /** @type {HTMLSelectElement} */ (h("select", { id: "order", onchange: () => filter() }, Object.entries(orders).map(([value, [label]]) => h("option", { value }, label))));
  const search = /** @type {HTMLInputElement} */ (h("input", { type: "search", id: "find", placeholder: "text", oninput: () => filter() }));
  const filter = () => {
    const text = search.value.trim().toLowerCase();
    found = questions.filter((/** @type {any} */ each) => !text || JSON.stringify(each).toLowerCase().includes(text)).sort(orders[order.value][1]);
    at = 0;
    show();
  };
  const show = () => {
    count.textContent = found.length ? `question ${at + 1} of ${found.length}` : "no question has this text";
    place.replaceChildren(...(found.length ? question(found[at], columns) : []));
  };
  const step = (/** @type {number} */ by) => () => { at = Math.max(0, Math.min(found.length - 1, at + by)); show(); };
  show();
  return [h("section", {}, h("h2", {}, "The same questions, side by side"),
    h("p", { class: "field" }, h("label", { for: "order" }, "Order "), order, h("label", { for: "find" }, "Search "), search,
      h("button", { type: "button", onclick: step(-1) }, "previous"), h("button", { type: "button", onclick: step(1) }, "next"), count), place,
    h("details", { class: "rule" }, h("summary", {}, `Which ${kept.toLocaleString("en-US")} of ${of.toLocaleString("en-US")} completions are kept`), h("p", {}, rule)))];
}

/** @param {any} asked @param {[string, string][]} columns */
function question(asked, columns) {
  const first = asked.answers.find(Boolean);
  return [
    h("p", { class: "where" }, h("span", {}, visible(asked.id)), asked.difficulty && h("span", {}, visible(asked.difficulty))),
    h("pre", { class: "prompt", dir: "auto", tabindex: "0" }, visible(first?.prompt ?? "")),
    h("details", {}, h("summary", {}, "What verifies an answer"), h("pre", {}, visible(asked.answer))),
    h("div", { class: "side" }, asked.answers.map((/** @type {any} */ each, /** @type {number} */ n) => {
      if (!each) return null;
      const right = each.completions.filter((/** @type {any} */ one) => one.right).length;
      const graded = each.completions.some((/** @type {any} */ one) => one.right !== null);
      const all = [...(each.greedy ? [["greedy", each.greedy]] : []), ...each.completions.map((/** @type {any} */ one, /** @type {number} */ at) => [`sampled ${at + 1}`, one])];
      return h("div", { class: "answer" }, h("h3", {}, `${visible(columns[n][0])}, ${columns[n][1]}`),
        graded && h("p", { class: "note" }, `${right} of ${each.completions.length} sampled right`),
        all.map(([name, one]) => h("details", { open: name === "greedy" || (name === "sampled 1" && !each.greedy) },
          h("summary", {}, h("i", { class: `mark ${one.right === null ? "" : one.right ? "right" : "wrong"}` }), ` ${name}, reward ${brief(one.reward)}, ${plural(one.length ?? 0, "token")}${one.cut ? ", cut off" : ""}`),
          h("pre", { dir: "auto", tabindex: "0" }, visible(one.text)))));
    })),
  ];
}
