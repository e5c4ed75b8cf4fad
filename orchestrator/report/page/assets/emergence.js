// The page Emergence: which behaviours came, stayed or went, and the same questions over time.

import { brief, h, percent, short, visible } from "./dom.js";
import { BANDS, chartSection } from "./learning.js";

/** @typedef {[number, number, number] | null} Interval */
/** @typedef {{name: string, start: Interval, end: Interval, right: Interval, wrong: Interval, first: number|null, last: number|null, verdict: string, agreement: string}} Behaviour */

/** @param {any} run */
export function emergencePage(run) {
  const { behaviours, charts, criterion, lengths } = run.emergence;
  return [
    behaviours.length > 0 && h("section", {}, h("h2", {}, "In words"), h("p", { class: "lead ink" }, inWords(behaviours, lengths)),
      table(behaviours), h("p", { class: "note" }, criterion)),
    charts.length > 0 ? chartSection(run, { title: "Behaviour by behaviour", charts, text: BANDS })
      : h("p", { class: "nothing" }, "This run recorded no behaviours."),
    questions(run),
  ];
}

/** @param {Behaviour[]} behaviours @param {(number|null)[]} lengths */
function inWords(behaviours, lengths) {
  const of = (/** @type {string} */ verdict) => behaviours.filter((each) => each.verdict === verdict);
  const grown = (/** @type {Behaviour} */ each) => `${each.name} (${percent(each.start?.[0], 0)} → ${percent(each.end?.[0], 0)})`;
  const list = (/** @type {Behaviour[]} */ found, /** @type {(each: Behaviour) => string} */ say) => found.map(say).join(", ");
  const said = [
    ["emerged", "Emerged"], ["grew", "Grew"], ["faded", "Faded"],
  ].map(([verdict, title]) => of(verdict).length ? `${title}: ${list(of(verdict), grown)}.` : null);
  if (!said.some(Boolean)) said.push("No behaviour changed beyond chance.");
  const rest = of("no clear change");
  const hardly = of("hardly seen");
  if (rest.length && said.some(Boolean)) said.push(`No clear change: ${list(rest, grown)}.`);
  if (hardly.length) said.push(`Hardly seen: ${list(hardly, (each) => each.name)}.`);
  const [first, last] = lengths;
  if (typeof first === "number" && typeof last === "number") said.push(`Completions went from ${brief(Number(first.toPrecision(3)))} to ${brief(Number(last.toPrecision(3)))} tokens.`);
  return said.filter(Boolean).join(" ");
}

/** @param {Behaviour[]} behaviours */
function table(behaviours) {
  const cell = (/** @type {Interval} */ found) => h("td", {}, found ? [percent(found[0]), h("span", { class: "half" }, ` [${percent(found[1], 0)}, ${percent(found[2], 0)}]`)] : "–");
  const heads = ["behaviour", "first fifth of the steps", "last fifth", "its right ones", "its wrong ones", "first seen", "last seen", "", "this marker's"];
  const step = (/** @type {number|null} */ found) => h("td", {}, found === null ? "–" : `step ${found}`);
  const rows = behaviours.map((each) => h("tr", {}, h("th", { scope: "row" }, each.name), cell(each.start), cell(each.end), cell(each.right), cell(each.wrong),
    step(each.first), step(each.last), h("td", { class: each.verdict === "emerged" || each.verdict === "grew" ? "strong" : "" }, each.verdict),
    h("td", { class: "half" }, each.agreement)));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));
}

const QUESTIONS = 6;

/** The first held-out questions, each with its first completion at several steps. @param {any} run */
function questions(run) {
  const steps = /** @type {number[]} */ (run.emergence.questions);
  const groups = run.rollouts.groups.filter((/** @type {any} */ group) => group.split === "held_out" && steps.includes(group.step));
  const ids = [...new Set(groups.map((/** @type {any} */ group) => group.id))].filter((id) =>
    steps.every((step) => groups.some((/** @type {any} */ group) => group.id === id && group.step === step)));
  if (steps.length < 2 || !ids.length) return null;
  const select = /** @type {HTMLSelectElement} */ (h("select", { id: "question", onchange: () => show() }, ids.slice(0, QUESTIONS).map((id, n) => h("option", { value: String(id) }, `question ${n + 1}`))));
  const place = h("div", {});
  const show = () => {
    const found = steps.map((step) => groups.find((/** @type {any} */ group) => group.id === select.value && group.step === step));
    place.replaceChildren(
      h("pre", { class: "prompt", dir: "auto", tabindex: "0" }, visible(found[0].prompt ?? "")),
      h("div", { class: "side" }, found.map((group) => {
        const [first] = group.completions;
        const right = group.completions.filter((/** @type {any} */ each) => each.right).length;
        const kind = first.right === null ? "" : first.right ? "right" : "wrong";
        return h("div", { class: "answer" },
          h("h3", {}, `Step ${group.step}`),
          h("p", { class: "where" }, h("span", {}, h("i", { class: `mark ${kind}` }), ` ${kind || `reward ${short(first.reward)}`}`),
            first.right !== null && h("span", {}, `${right} of ${group.completions.length} right`)),
          h("pre", { dir: "auto", tabindex: "0" }, visible(first.text)));
      })));
  };
  show();
  return h("section", {}, h("h2", {}, "The same question over time"),
    h("p", {}, "The first held-out questions, each with its first sampled completion. They are not picked by how good they are."),
    h("p", { class: "field" }, h("label", { for: "question" }, "Question "), select), place);
}
