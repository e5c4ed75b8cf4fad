// The page Learning: charts in sections, and any other metric by its name.

import { h } from "./dom.js";
import { chartCard, chartValues, documentation, drawWaiting } from "./charts.js";

export const BANDS = "Bands are 95% intervals of means over completions or over groups. Prompts count as the independent units, "
  + "for completions of one prompt resemble each other. Lines without a band are no such means, or their parts were not recorded.";

/** @param {any} run */
export function learningPage(run) {
  if (!run.learning.length && !Object.keys(run.series).length) return [h("p", { class: "nothing" }, "No step was recorded.")];
  return [h("p", { class: "note" }, BANDS), ...run.learning.map((/** @type {any} */ section) => chartSection(run, section)), anyMetric(run)];
}

/** @param {any} run @param {{title: string, charts: import("./plots.js").Chart[], text?: string}} section */
export function chartSection(run, section) {
  const isQuiet = (/** @type {any} */ chart) => (chart.kind ?? "lines") === "lines"
    && chartValues(run, chart).every(({ y }) => y.every((value) => value === 0));
  const quiet = section.charts.filter(isQuiet);
  const loud = section.charts.filter((chart) => !quiet.includes(chart));
  return h("section", {}, h("h2", {}, section.title), section.text && h("p", {}, section.text),
    h("div", { class: "charts" }, loud.map((chart) => chartCard(run, chart))),
    quiet.length > 0 && h("p", { class: "note quiet" }, `0 at every step: ${quiet.map((chart) => chart.title.toLowerCase()).join("; ")}.`));
}

/** @param {any} run */
function anyMetric(run) {
  const keys = Object.keys(run.series).filter((key) => !key.endsWith("_ci95")).sort();
  if (!keys.length) return null;
  const place = h("div", { class: "charts one" });
  const show = (/** @type {string} */ key) => {
    const [unit] = run.meanings[key] ?? [""];
    const chart = { title: key, unit: unit === "0 to 1" ? "share" : unit, lines: [{ label: key, key }], note: documentation(run, key) };
    place.replaceChildren(chartCard(run, chart, { wide: true }));
    drawWaiting();
  };
  const select = /** @type {HTMLSelectElement} */ (h("select", { id: "metric", onchange: () => show(select.value) },
    keys.map((key) => h("option", { value: key }, key))));
  const first = keys.includes("reward/total") ? "reward/total" : keys[0];
  select.value = first;
  show(first);
  return h("section", {}, h("h2", {}, "Any metric"), h("p", { class: "field" }, h("label", { for: "metric" }, "Metric "), select), place);
}
