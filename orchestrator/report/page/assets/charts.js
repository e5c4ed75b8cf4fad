// A chart on the page: its title and unit, the drawing once it comes into view, and a sentence on how to read it.

import { valuesOf } from "./columns.js";
import { h, plain, plural, short } from "./dom.js";
import { drawn, layout, lineStyle, plotData, readingNote, valueRange } from "./plots.js";

/** @typedef {import("./plots.js").Chart} Chart */
/** @typedef {import("./plots.js").Drawn} Drawn */

/** @type {Map<Element, () => void>} what is still to be drawn, by its place */
const waiting = new Map();
/** @type {Map<Element, () => void>} what is drawn */
const done = new Map();
/** @type {WeakMap<Element, number>} how wide it was drawn, pixels */
const widths = new WeakMap();
const NARROW = 430;
const LETTER = 6.6;
const LINE_HEIGHT = 14;

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "200px" });

/** @param {Element} place */
function draw(place) {
  const make = waiting.get(place);
  if (!make || !("Plotly" in window)) return;
  waiting.delete(place);
  observer.unobserve(place);
  done.set(place, make);
  make();
}

/** Draw what is waiting and can be seen, and again what has another width by now; with `all`, everything. @param {boolean} [all] */
export function drawWaiting(all = false) {
  for (const [place, make] of done) if (place.clientWidth && place.clientWidth !== widths.get(place)) make();
  for (const place of [...waiting.keys()]) {
    if (all) draw(place);
    else {
      observer.unobserve(place);
      observer.observe(place);
    }
  }
}

/** Draw again what is drawn: the colours or the width have changed. */
export function drawAgain() {
  for (const [place, make] of done) if (place.isConnected && place.clientWidth) make();
}

/** Forget the charts of a run that is no longer shown. */
export function forgetCharts() {
  for (const place of done.keys()) /** @type {any} */ (window).Plotly?.purge(place);
  waiting.clear();
  done.clear();
}

/**
 * Make a chart's card.
 * @param {any} run
 * @param {Chart} chart
 * @param {{wide?: boolean, height?: number}} [options]
 */
export function chartCard(run, chart, options = {}) {
  const place = h("div", { class: "plot", role: "img", "aria-label": spoken(run, chart) });
  const height = options.height ?? 220;
  place.style.height = `${height}px`;
  const key = h("div", { class: "key" });
  waiting.set(place, () => plot(place, key, run, chart, height));
  observer.observe(place);
  const unit = chart.log ? `${chart.unit}, log scale` : chart.unit;
  const title = h("figcaption", {}, h("h3", {}, chart.title), unit && h("span", { class: "unit" }, unit));
  const note = [chart.note, readingNote(run, chart)].filter(Boolean).join(" ");
  return h("figure", { class: options.wide ? "chart wide" : "chart" }, title, key, place, note && h("p", { class: "note" }, note));
}

/** What the documentation of a metric says. @param {any} run @param {string} key */
export function documentation(run, key) {
  const [, meaning, healthy, otherwise] = run.meanings[key] ?? ["", "", "", ""];
  const words = [meaning && `${meaning[0].toUpperCase()}${meaning.slice(1)}.`, healthy && `Healthy: ${healthy}.`, otherwise && `Otherwise: ${otherwise}.`];
  return words.filter(Boolean).join(" ");
}

/** A sentence for who does not see the chart. @param {any} run @param {Chart} chart */
function spoken(run, chart) {
  const said = chartValues(run, chart).map(({ label, x, y }) =>
    y.length ? `${label}: ${short(y[0])} at ${x[0]}, ${short(y[y.length - 1])} at ${x[x.length - 1]}` : label);
  return `${chart.title}. ${said.join("; ")}`;
}

/**
 * A chart's lines with their known values.
 * @param {any} run
 * @param {Chart} chart
 * @returns {{label: string, x: any[], y: any[]}[]}
 */
export function chartValues(run, chart) {
  return chart.lines.map((line) => {
    const x = line.x ?? run.steps;
    const y = line.key ? valuesOf(run, line.key, false).y : (line.y ?? []);
    const known = y.map((/** @type {any} */ value, /** @type {number} */ n) => n).filter((/** @type {number} */ n) => y[n] !== null);
    return { label: line.label, x: known.map((/** @type {number} */ n) => x[n]), y: known.map((/** @type {number} */ n) => y[n]) };
  });
}

/**
 * @param {HTMLElement} place
 * @param {HTMLElement} key
 * @param {any} run
 * @param {Chart} chart
 * @param {number} height
 */
function plot(place, key, run, chart, height) {
  const lines = drawn(run, chart).filter((line) => line.x.length);
  const width = place.clientWidth;
  widths.set(place, width);
  const steps = !["groups", "timeline"].includes(chart.kind ?? "lines");
  const atEnd = (chart.kind ?? "lines") === "lines" && width >= NARROW && lines.length > 1;
  const longest = Math.max(0, ...lines.map((line) => line.label.length));
  const margin = { left: chart.kind === "timeline" ? 104 : 46, right: atEnd ? Math.min(150, 16 + longest * LETTER) : 14, top: 10, bottom: 38 };
  const range = valueRange(chart, lines);
  const labels = atEnd ? endLabels(lines, chart, range, height - margin.top - margin.bottom) : [];
  if (atEnd && !labels.length) margin.right = 14;
  key.replaceChildren(...(labels.length || (lines.length < 2 && chart.kind !== "stack") ? [] : keyEntries(chart, lines)));
  const made = layout(chart, lines, range, margin, window.matchMedia("(pointer: coarse)").matches);
  const data = [...plotData(chart, lines), ...(steps ? eventMarks(run, lines) : [])];
  // Left to itself the library keeps the width of its first drawing.
  Object.assign(made, { width, height, annotations: labels, shapes: steps ? eventLines(run, lines) : [], yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true } });
  /** @type {any} */ (window).Plotly.react(place, data, made, { displayModeBar: false, responsive: false, doubleClick: "reset" });
}

/** @param {Chart} chart @param {Drawn[]} lines */
function keyEntries(chart, lines) {
  const entries = lines.map((line) => ({ label: line.label, color: line.color, dash: line.dash }));
  if (chart.kind === "stack") {
    const [low, high] = lines;
    const { color } = lineStyle("main");
    const faint = lineStyle("muted").color;
    return [[low.label, faint, 0.55], [chart.rest ?? "", color, 0.85], [high?.label ?? "", color, 0.3]].map(([label, shade, opacity]) =>
      h("span", {}, h("i", { class: "block", style: `background:${shade};opacity:${opacity}` }), label));
  }
  const block = (chart.kind ?? "lines") !== "lines";
  return entries.map(({ label, color, dash }) =>
    h("span", {}, h("i", { class: block ? "block" : dash === "dot" ? "dot" : "", style: `--shade:${color}` }), label));
}

/**
 * Names at the ends of the lines, moved apart where they would touch.
 * @param {Drawn[]} lines
 * @param {Chart} chart
 * @param {[number, number] | null} range
 * @param {number} height of the drawing, pixels
 */
function endLabels(lines, chart, range, height) {
  const last = lines.map((line) => line.y[line.y.length - 1] ?? 0);
  let [low, high] = range ?? [Math.min(...last), Math.max(...last)];
  const logs = chart.log ? lines.flatMap((line) => line.y.map((value) => Math.log10(/** @type {number} */ (value)))) : [];
  if (chart.log) [low, high] = [Math.min(...logs), Math.max(...logs)];
  const pixel = (/** @type {number} */ value) => ((chart.log ? Math.log10(value) : value) - low) / (high - low || 1) * height;
  const placed = lines.map((line, n) => ({ line, value: last[n], at: pixel(last[n]), to: pixel(last[n]) })).sort((a, b) => a.at - b.at);
  if (placed.length * LINE_HEIGHT > height) return [];
  placed.forEach((each, n) => { if (n) each.to = Math.max(each.to, placed[n - 1].to + LINE_HEIGHT); });
  const over = Math.max(0, (placed[placed.length - 1]?.to ?? 0) - height);
  if (over) {
    placed[placed.length - 1].to = height;
    for (let n = placed.length - 2; n >= 0; n--) placed[n].to = Math.min(placed[n].to, placed[n + 1].to - LINE_HEIGHT);
  }
  return placed.map(({ line, value, at, to }) => ({
    x: line.x[line.x.length - 1], y: chart.log ? Math.log10(value) : value, yshift: to - at, xshift: 8, xanchor: "left",
    text: plain(line.label), showarrow: false, font: { size: 12, color: line.role === "muted" ? lineStyle("label").color : line.color }, align: "left",
  }));
}

/** @param {any} run @param {Drawn[]} lines */
function eventsWithin(run, lines) {
  const steps = lines.flatMap((line) => line.x);
  const [first, last] = steps.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  /** @type {Map<number, string[]>} */
  const found = new Map();
  for (const { step, text } of run.events) {
    if (step >= first && step <= last) found.set(step, [...(found.get(step) ?? []), text]);
  }
  return found;
}

/** @param {any} run @param {Drawn[]} lines */
function eventLines(run, lines) {
  const { color } = lineStyle("wrong");
  return [...eventsWithin(run, lines).keys()].slice(0, 200).map((step) => ({
    type: "line", x0: step, x1: step, yref: "paper", y0: 0, y1: 1, layer: "below", line: { color, width: 1, dash: "dot" },
  }));
}

/** @param {any} run @param {Drawn[]} lines */
function eventMarks(run, lines) {
  const found = [...eventsWithin(run, lines)].slice(0, 200);
  if (!found.length) return [];
  return [{
    type: "scatter", mode: "markers", yaxis: "y2", x: found.map(([step]) => step), y: found.map(() => 0.985), name: "",
    marker: { symbol: "triangle-down", size: 8, color: lineStyle("wrong").color },
    text: found.map(([, texts]) => plain(texts.length > 3 ? plural(texts.length, "event") : texts.join("; "))), hovertemplate: "%{text}<extra></extra>",
  }];
}
