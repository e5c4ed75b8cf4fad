// The page Compare: several runs on the same axes, and what differs between them.

import { valuesOf } from "./columns.js";
import { h, pValue, signed, visible } from "./dom.js";
import { chartCard, documentation, drawWaiting } from "./charts.js";

/** @type {[string, string, string][]} */
const CURVES = [
  ["Held-out pass@1", "eval/pass_at_1", "share"],
  ["Held-out greedy", "eval/greedy_pass_at_1", "share"],
  ["Mean reward, training", "reward/total", "reward"],
  ["Right on training prompts", "reward/correctness", "share"],
  ["Length of completions", "rollout/completion_tokens", "tokens"],
  ["Groups without spread", "rollout/groups_without_spread", "share"],
  ["Entropy", "optim/entropy", "nats"],
  ["Gradient norm", "optim/grad_norm", "norm"],
  ["Gap between sampler and learner", "rollout/logprob_gap", "nats"],
  ["Seconds of a step", "time/step_s", "s"],
];
const COLOURS = 6;

/** @param {any} data */
export function comparePage(data) {
  const charts = h("div", { class: "charts" });
  const axes = { step: "step", completions: "completions sampled", minutes: "minutes of training" };
  const select = /** @type {HTMLSelectElement} */ (h("select", { id: "axis", onchange: () => show() },
    Object.entries(axes).map(([value, label]) => h("option", { value }, label))));
  const show = () => {
    const axis = /** @type {keyof typeof axes} */ (select.value);
    charts.replaceChildren(...CURVES.map(([title, key, unit]) => {
      const known = data.runs.find((/** @type {any} */ run) => run.series[key]);
      return known && chartCard(
        { steps: [], series: {}, events: happened(data.runs, axis) },
        { title, unit, lines: lines(data.runs, key, axis, unit), note: documentation(known, key), x_title: axes[axis], log: key === "rollout/logprob_gap" });
    }).filter(Boolean));
    drawWaiting();
  };
  show();
  return [
    h("section", {}, h("h2", {}, "Curves"), h("p", { class: "field" }, h("label", { for: "axis" }, "Over "), select), charts),
    h("section", {}, h("h2", {}, "On the same held-out problems"), pairs(data)),
    h("section", {}, h("h2", {}, "Settings that differ"), settings(data)),
  ];
}

/** @param {any[]} runs @param {string} key @param {string} axis @param {string} unit */
function lines(runs, key, axis, unit) {
  return runs.map((run, n) => {
    return { label: run.name, role: `run${n % COLOURS}`, x: axis === "step" ? run.steps : run.clocks[axis], ...valuesOf(run, key, unit === "share") };
  });
}

/**
 * The events of all runs, where they are on an axis.
 * @param {any[]} runs @param {string} axis
 * @returns {{step: number, text: string}[]}
 */
function happened(runs, axis) {
  return runs.flatMap((run) => run.events.map((/** @type {any} */ event) => {
    const at = axis === "step" ? event.step : run.clocks[axis][run.steps.indexOf(event.step)];
    return { step: at ?? NaN, text: `${run.name}, step ${event.step}: ${event.text}` };
  }));
}

/** @param {any} data */
function pairs(data) {
  return [
    h("p", {}, "Differences in pass@1 at the last evaluation, paired problem by problem, with 95% intervals; p-values are exact."),
    h("ul", { class: "plainlist" }, data.compare.pairs.map((/** @type {any} */ pair) => {
      if (pair.why) return h("li", {}, h("b", {}, `${pair.name} against ${pair.to}`), `: not compared, as ${pair.why}.`);
      const [mean, low, high, p] = pair.difference;
      const points = `${signed(100 * mean)} points [${signed(100 * low)}, ${signed(100 * high)}], ${pValue(p)}`;
      return h("li", {}, h("b", {}, `${pair.name} against ${pair.to}`), `: ${points}, on ${pair.problems} problems, steps ${pair.steps[0]} and ${pair.steps[1]}.`);
    })),
  ];
}

/** @param {any} data */
function settings(data) {
  const rows = data.compare.settings;
  if (!rows.length) return h("p", {}, "None but the name.");
  const heads = ["setting", ...data.runs.map((/** @type {any} */ run) => run.name)];
  return h("div", { class: "scroll" }, h("table", { class: "dense" }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: "said" }, head)))),
    h("tbody", {}, rows.map((/** @type {string[]} */ [key, ...values]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, visible(key))),
      values.map((value) => h("td", { class: "said" }, visible(value) || "–")))))));
}
