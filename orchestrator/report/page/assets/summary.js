// The page Summary: the model, its task, the time and cost of training, and the result.

import { duration, fixed, h, pValue, percent, plural, short, signed, svg } from "./dom.js";
import { chartCard } from "./charts.js";

/** @typedef {{title: string, is_rate?: boolean, is_training?: boolean, before: [number|null, number|null], after: [number|null, number|null], change?: [number, number, number, number | null] | null, change_half?: number}} Figure */

/** @param {any} run */
export function summaryPage(run) {
  const { summary } = run;
  const first = run.learning[0]?.charts[0];
  return [
    hero(run),
    first && h("div", { class: "charts one" }, chartCard(run, first, { wide: true, height: 280 })),
    h("div", { class: "columns" },
      summary.figures.length > 0 && h("section", {}, h("h2", {}, "Before and after"), figureTable(summary)),
      h("section", {}, h("h2", {}, "The run"), factList(summary))),
    h("section", {}, h("h2", {}, "Health"), health(run)),
    summary.recipe && h("section", {}, h("h2", {}, "Repeat it"), repeat(run)),
  ];
}

/** @param {any} run */
function hero(run) {
  const { summary } = run;
  const outcome = /** @type {Figure | null} */ (summary.outcome);
  return h("section", { class: "hero" },
    h("p", { class: "eyebrow" }, `run ${run.name}`),
    h("h1", {}, headline(summary)),
    h("p", { class: "lead" }, stateSentence(summary)),
    outcome ? result(summary, outcome) : h("p", { class: "nothing" }, "No step was recorded: there is nothing to show of its learning."));
}

/** @param {any} summary */
function headline(summary) {
  const model = summary.model[0].toUpperCase() + summary.model.slice(1);
  return `${model}, ${summary.command === "sft" ? "taught by examples (rayzero sft)" : "trained"} on ${summary.task}`;
}

/** @param {any} summary */
function stateSentence(summary) {
  const [last, planned] = summary.steps;
  const took = summary.seconds ? ` in ${duration(summary.seconds)}` : "";
  if (summary.state === "complete") return `Complete: ${plural(last, "step")}${took}.`;
  if (summary.state === "going on") return `Going on: ${last.toLocaleString("en-US")} of ${plural(planned, "step")} so far${took}.`;
  return last ? `Ended early, after ${last.toLocaleString("en-US")} of ${plural(planned, "step")}${took}.` : "Ended before its first step.";
}

/** @param {number | null} value @param {Figure} figure */
const shown = (value, figure) => (figure.is_rate ? percent(value) : short(value));

/** @param {any} summary @param {Figure} outcome */
function result(summary, outcome) {
  const [before, after] = [outcome.before[0], outcome.after[0]];
  const isOne = summary.evaluated.length === 2 && summary.evaluated[0] === summary.evaluated[1];
  const what = outcome.is_training
    ? `${outcome.title}, first and last tenth of the steps. This run has no evaluation on held-out problems.`
    : `${outcome.title} on ${summary.problems ? `${summary.problems} ` : ""}held-out problems, ${isOne ? "before training" : `at step ${summary.evaluated.join(" and at step ")}`}.`;
  const numbers = isOne
    ? [number("before", before, outcome, "now")]
    : [number("before", before, outcome, "then"), h("span", { class: "arrow", "aria-hidden": "true" }, "→"), number("after", after, outcome, "now"), change(outcome)];
  return h("div", { class: "result" }, h("div", { class: "numbers" }, numbers), whiskers(outcome, isOne), h("p", { class: "caption" }, what));
}

/** @param {string} when @param {number | null} value @param {Figure} figure @param {string} kind */
const number = (when, value, figure, kind) =>
  h("span", { class: `number ${kind}` }, h("small", {}, when), h("b", {}, shown(value, figure)));

/** @param {Figure} figure */
function change(figure) {
  const [before, after] = [figure.before[0], figure.after[0]];
  if (before === null || after === null) return null;
  const [difference, low, high, p] = figure.change ?? around(after - before, figure.change_half);
  const scale = figure.is_rate ? 100 : 1;
  const text = figure.is_rate ? `${signed(100 * difference)} points` : signed(difference, 3);
  const digits = figure.is_rate ? 1 : 3;
  const detail = low !== null && high !== null ? `95% interval ${signed(scale * low, digits)} to ${signed(scale * high, digits)}${p === null ? "" : `, ${pValue(p)}`}` : null;
  return h("span", { class: difference >= 0 ? "change up" : "change down" }, h("b", {}, text), detail && h("small", {}, detail));
}

/** @param {number} difference @param {number | undefined} half @returns {[number, number | null, number | null, null]} */
const around = (difference, half) => (half === undefined ? [difference, null, null, null] : [difference, difference - half, difference + half, null]);

/** Both figures with their intervals on one scale. @param {Figure} figure @param {boolean} isOne */
function whiskers(figure, isOne) {
  const rows = isOne ? [figure.before] : [figure.before, figure.after];
  const ends = rows.flatMap(([value, half]) => (value === null ? [] : [value - (half ?? 0), value + (half ?? 0)]));
  if (!ends.length) return null;
  const [low, high] = figure.is_rate ? [0, 1] : [Math.min(0, ...ends), Math.max(...ends, 0.001)];
  const at = (/** @type {number} */ value) => `${(1 + 98 * Math.min(1, Math.max(0, (value - low) / (high - low)))).toFixed(2)}%`;
  const height = 18 + rows.length * 16;
  const marks = rows.flatMap(([value, half], n) => {
    if (value === null) return [];
    const y = 10 + n * 16;
    const name = n === rows.length - 1 && !isOne ? "after" : "before";
    const bar = half === null ? [] : [svg("line", { x1: at(value - half), x2: at(value + half), y1: y, y2: y, class: `whisker ${name}` })];
    return [...bar, svg("circle", { cx: at(value), cy: y, r: 5, class: `point ${name}` })];
  });
  const base = height - 8;
  const ticks = figure.is_rate ? [0, 0.25, 0.5, 0.75, 1] : [];
  const lines = ticks.map((tick) => svg("line", { x1: at(tick), x2: at(tick), y1: 2, y2: base, class: "tick" }));
  const label = `${figure.title}: before ${shown(figure.before[0], figure)}, after ${shown(figure.after[0], figure)}`;
  const drawing = svg("svg", { width: "100%", height, class: "whiskers", role: "img", "aria-label": label }, ...lines, ...marks);
  const scale = ticks.length ? h("div", { class: "scale", "aria-hidden": "true" }, ticks.map((tick) => h("span", { style: `left:${1 + 98 * tick}%` }, percent(tick, 0)))) : null;
  return h("div", { class: "interval" }, drawing, scale);
}

/** @param {any} summary */
function figureTable(summary) {
  const [first, last] = summary.evaluated;
  const isOne = first === last;
  const head = h("tr", {}, h("th", { scope: "col" }, ""), h("th", { scope: "col" }, `step ${first}`),
    !isOne && h("th", { scope: "col" }, `step ${last}`), !isOne && h("th", { scope: "col" }, "change"));
  const rows = summary.figures.map((/** @type {Figure} */ figure) => {
    const [before, after] = [figure.before[0], figure.after[0]];
    const difference = before === null || after === null ? null : after - before;
    const text = difference === null ? "" : apart(difference, figure);
    return h("tr", {}, h("th", { scope: "row" }, figure.title), cell(figure.before, figure), !isOne && cell(figure.after, figure),
      !isOne && h("td", { class: "strong" }, text, h("span", { class: "half" }, changeInterval(figure))));
  });
  const note = "Half widths of 95% intervals over problems stand after ±; changes of shares are in points. The interval of a change stands in brackets, over the same problems, where completions tell it, else after ±, the wider one of two sets of problems.";
  return [h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), h("tbody", {}, rows))), h("p", { class: "note" }, note)];
}

/** @param {number} value @param {Figure} figure */
const apart = (value, { is_rate }) => (is_rate ? signed(100 * value) : signed(value, Math.abs(value) < 10 ? 2 : 1));

/** @param {Figure} figure */
function changeInterval(figure) {
  const { is_rate, change: found, change_half } = figure;
  if (found) return ` [${apart(found[1], figure)}, ${apart(found[2], figure)}]`;
  return change_half === undefined ? null : ` ±${is_rate ? fixed(100 * change_half) : short(change_half)}`;
}

/** @param {[number|null, number|null]} found @param {Figure} figure */
function cell([value, half], figure) {
  const width = half === null ? null : figure.is_rate ? fixed(100 * half) : short(half);
  return h("td", {}, shown(value, figure), width && h("span", { class: "half" }, ` ±${width}`));
}

/** @param {any} summary */
const factList = (summary) =>
  h("dl", {}, summary.facts.map((/** @type {[string, string]} */ [label, text]) => [h("dt", {}, label), h("dd", {}, text)]));

/** @param {any} run */
function health({ summary, events }) {
  const alarms = summary.verdicts;
  const list = alarms.map((/** @type {any} */ alarm) =>
    h("li", { class: alarm.holds ? "alarm" : "" }, h("b", {}, `${alarm.name}, step ${alarm.step}`), alarm.holds ? "" : " (no longer)", h("br"), alarm.text));
  const quiet = `None of the ${summary.checks} health checks raised an alarm.`;
  /** @type {Record<string, string>} */
  const outlooks = {
    trainable: "Before training it was judged trainable: enough groups had right and wrong completions.",
    slow: "Before training it was judged slow to train: few groups had both right and wrong completions.",
    "too hard": "Before training it was judged too hard for the model.",
    "too easy": "Before training it was judged too easy for the model.",
  };
  const happened = events.map((/** @type {any} */ event) => h("li", {}, h("b", {}, `step ${event.step}`), " ", event.text));
  return [
    h("p", {}, alarms.length ? `${plural(alarms.length, "alarm")} of ${summary.checks} health checks:` : summary.checks && summary.steps[0] ? quiet : "No step was checked."),
    alarms.length > 0 && h("ul", { class: "plainlist" }, list),
    outlooks[summary.outlook] && h("p", {}, outlooks[summary.outlook]),
    happened.length > 0 && h("details", {}, h("summary", {}, plural(happened.length, "event")), h("ul", { class: "plainlist" }, happened)),
  ];
}

/** @param {any} run */
function repeat({ name, summary }) {
  return [
    h("p", {}, "Save these settings as ", h("code", {}, `${name}.toml`), ". All others are the defaults; of paths only the last part is shown."),
    copyable(`rayzero ${summary.command} ${name}.toml`),
    h("details", {}, h("summary", {}, `${name}.toml`), copyable(summary.recipe)),
  ];
}

/** @param {string} text */
function copyable(text) {
  const button = h("button", { type: "button", class: "copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      button.textContent = "select and copy it";
    }
  } }, "copy");
  return h("div", { class: "code" }, h("pre", { tabindex: "0" }, text), button);
}
