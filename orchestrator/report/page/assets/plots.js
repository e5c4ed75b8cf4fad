// What plotly is asked to draw: colours from the page's own style, few lines, no toolbar.

import { valuesOf } from "./columns.js";
import { plain } from "./dom.js";

/** @typedef {{label: string, key?: string, role?: string, x?: any[], y?: (number|null)[], low?: (number|null)[], high?: (number|null)[]}} Line */
/** @typedef {{title: string, unit: string, lines: Line[], note?: string, kind?: string, rest?: string, log?: boolean, x_title?: string}} Chart */
/** @typedef {{label: string, color: string, x: any[], y: (number|null)[], low: (number|null)[], high: (number|null)[], width: number, dash: string, role: string}} Drawn */

/** @param {string} name */
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** @param {string} role */
export function lineStyle(role) {
  /** @type {Record<string, [string, number, string]>} */
  const roles = {
    main: ["--accent", 2.25, "solid"],
    right: ["--accent", 2.25, "solid"],
    second: ["--ink", 1.5, "solid"],
    third: ["--ink", 1.5, "dot"],
    wrong: ["--warm", 1.75, "solid"],
    muted: ["--faint", 1.5, "solid"],
    label: ["--muted", 1.5, "solid"], // faint text is hard to read
  };
  const [color, width, dash] = roles[role] ?? roles.main;
  return { color: role.startsWith("run") ? style(`--${role}`) : style(color), width, dash };
}

/**
 * Return a chart's lines with their values.
 * @param {any} run
 * @param {Chart} chart
 * @returns {Drawn[]}
 */
export function drawn(run, chart) {
  return chart.lines.map((line) => {
    const role = line.role ?? "main";
    let [x, y, low, high] = [line.x ?? run.steps, line.y ?? [], line.low ?? [], line.high ?? []];
    if (line.key) ({ y, low, high } = valuesOf(run, line.key, chart.unit === "share"));
    if (chart.kind === "timeline") return { label: line.label, x, y, low, high, role, ...lineStyle(role) };
    const known = y.map((value, n) => n).filter((n) => y[n] !== null && !(chart.log && /** @type {number} */ (y[n]) <= 0));
    const pick = (/** @type {any[]} */ list) => (list.length ? known.map((n) => list[n]) : []);
    return { label: line.label, x: pick(x), y: pick(y), low: pick(low), high: pick(high), role, ...lineStyle(role) };
  });
}

/**
 * Mean over the last values of each point, for curves of many steps.
 * @param {(number|null)[]} values
 * @param {number} window
 */
export function smoothed(values, window) {
  let sum = 0;
  return values.map((value, n) => {
    sum += value ?? 0;
    if (n >= window) sum -= values[n - window] ?? 0;
    return sum / Math.min(n + 1, window);
  });
}

export const MANY = 60;

/** How many steps the thick line of a long run is a mean over. @param {number} steps */
export const smoothing = (steps) => Math.round(steps / 25);

/**
 * What bands and thick lines are; empty where a chart has none.
 * @param {any} run
 * @param {Chart} chart
 */
export function readingNote(run, chart) {
  if ((chart.kind ?? "lines") !== "lines") return "";
  const lines = chart.lines.map(({ key, y, low }) => (key ? valuesOf(run, key, false) : { y: y ?? [], low: low ?? [] }));
  const isMany = !chart.log && lines.some(({ y }) => y.filter((value) => value !== null).length > MANY);
  return [
    lines.some(({ low }) => low.some((value) => value !== null)) && "Bands are 95% intervals over prompts.",
    isMany && `Thick lines are means over ${smoothing(Math.max(...lines.map(({ y }) => y.length)))} steps.`,
  ].filter(Boolean).join(" ");
}

/** @param {Drawn} line @param {Chart} chart */
function traces(line, chart) {
  const isShare = chart.unit === "share";
  const base = { type: "scatter", x: line.x, hovertemplate: `%{y:${isShare ? ".1%" : ".4~g"}}`, name: plain(line.label) };
  const few = line.x.length <= 20;
  const stroke = { color: line.color, width: line.width, dash: line.dash };
  const made = [];
  const ends = line.low.map((_, n) => n).filter((n) => line.low[n] !== null && line.high[n] !== null);
  if (ends.length) {
    const at = (/** @type {any[]} */ list) => ends.map((n) => list[n]);
    const quiet = { ...base, x: at(line.x), mode: "lines", hoverinfo: "skip", hovertemplate: undefined, showlegend: false };
    made.push({ ...quiet, y: at(line.low), line: { width: 0 } });
    made.push({ ...quiet, y: at(line.high), line: { width: 0 }, fill: "tonexty", fillcolor: faded(line.color, 0.14) });
  }
  if (line.x.length > MANY && !chart.log) {
    made.push({ ...base, y: line.y, mode: "lines", line: { ...stroke, width: 1 }, opacity: 0.28, hoverinfo: "skip", hovertemplate: undefined });
    made.push({ ...base, y: smoothed(line.y, smoothing(line.x.length)), mode: "lines", line: stroke });
  } else {
    const marker = { color: line.color, size: line.role === "muted" ? 4 : 6 };
    made.push({ ...base, y: line.y, mode: few ? "lines+markers" : "lines", line: stroke, marker });
  }
  return made;
}

/** @param {string} color a hex colour @param {number} alpha */
export function faded(color, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

/** @param {Drawn[]} lines @param {Chart} chart */
function stack(lines, chart) {
  const [low, high] = lines;
  const rest = low.y.map((value, n) => Math.max(0, 1 - (value ?? 0) - (high.y[n] ?? 0)));
  const middle = { ...low, ...lineStyle("main"), label: chart.rest ?? "", y: rest };
  const shades = [faded(style("--faint"), 0.55), faded(style("--accent"), 0.85), faded(style("--accent"), 0.3)];
  return [low, middle, high].map((line, n) => ({
    type: "scatter", mode: "lines", stackgroup: "one", x: line.x, y: line.y, name: plain(line.label),
    line: { width: 0 }, fillcolor: shades[n], hovertemplate: "%{y:.1%}",
  }));
}

/** Shares or seconds on top of each other. @param {Drawn[]} lines */
const areas = (lines) => lines.map((line) => ({
  type: "scatter", mode: "lines", stackgroup: "one", x: line.x, y: line.y, name: plain(line.label),
  line: { width: 0 }, fillcolor: faded(line.color, 0.75), hovertemplate: "%{y:.4~g}",
}));

/** Spans in rows. @param {Drawn[]} lines */
const timeline = (lines) => lines.map((line) => ({
  type: "bar", orientation: "h", y: line.x, base: line.low, x: line.high.map((high, n) => (high ?? 0) - (line.low[n] ?? 0)),
  name: plain(line.label), marker: { color: line.color }, hovertemplate: "%{x:.3~g} s",
}));

/** @param {Drawn[]} lines @param {Chart} chart */
function bars(lines, chart) {
  return lines.map((line) => ({
    type: "bar", x: line.x.map((label) => (typeof label === "string" ? plain(label) : label)), y: line.y,
    name: plain(line.label), marker: { color: line.color },
    hovertemplate: chart.unit === "share" ? "%{y:.1%}" : "%{y:.4~g}",
    error_y: line.low.length
      ? { type: "data", symmetric: false, color: style("--muted"), thickness: 1.25, width: 3,
          array: line.high.map((high, n) => (high ?? 0) - (line.y[n] ?? 0)),
          arrayminus: line.low.map((low, n) => (line.y[n] ?? 0) - (low ?? 0)) }
      : undefined,
  }));
}

/**
 * @param {Chart} chart
 * @param {Drawn[]} lines
 */
export function plotData(chart, lines) {
  if (chart.kind === "stack") return stack(lines, chart);
  if (chart.kind === "areas") return areas(lines);
  if (chart.kind === "timeline") return timeline(lines);
  if (chart.kind === "bars" || chart.kind === "groups") return bars(lines, chart);
  return lines.flatMap((line) => traces(line, chart));
}

/**
 * The range of the values, with room above and below.
 * @param {Chart} chart
 * @param {Drawn[]} lines
 * @returns {[number, number] | null} null where the library shall choose
 */
export function valueRange(chart, lines) {
  if (chart.log || (chart.kind ?? "lines") !== "lines") return chart.kind === "stack" ? [0, 1] : null;
  const values = lines.flatMap((line) => [...line.y, ...line.low, ...line.high]).filter((value) => value !== null);
  if (!values.length) return null;
  let [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (chart.unit === "count") low = Math.min(0, low);
  if (chart.unit === "share") [low, high] = [0, Math.min(1, Math.max(high * 1.15, 0.05))];
  else if (low >= 0 && low < high * 0.6) low = 0;
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low === 0 ? 0 : low - room, chart.unit === "share" ? Math.min(1.02, high + room) : high + room];
}

/**
 * Where a log axis has its numbers: powers of ten, or between them where there are fewer than two.
 * @param {Drawn[]} lines
 */
function logTicks(lines) {
  const values = lines.flatMap((line) => line.y.map((value) => Math.log10(/** @type {number} */ (value))));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(0.08 * (high - low), 0.05);
  const ticksAt = (/** @type {number[]} */ digits, every = 1) => {
    const ticks = [];
    for (let power = Math.floor(low - room); power <= high + room; power++) {
      for (const digit of digits) {
        const at = power + Math.log10(digit);
        if (at >= low - room && at <= high + room && power % every === 0) ticks.push(digit * 10 ** power);
      }
    }
    return ticks;
  };
  const decades = ticksAt([1]).length;
  const ticks = [ticksAt([1], Math.ceil(decades / 5) || 1), ticksAt([1, 2, 5]), ticksAt([1, 2, 3, 4, 5, 6, 7, 8, 9])]
    .find((found, n) => found.length > 1 || n === 2) ?? [];
  return { range: [low - room, high + room], tickvals: ticks, ticktext: ticks.map((tick) => tick.toExponential(0).replace("-", "−")) };
}

/** The steps with room at both ends. @param {Drawn[]} lines */
function stepRange(lines) {
  const [low, high] = lines.flatMap((line) => line.x).reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  const room = (high - low || 1) * 0.015;
  return [low - room, high + room];
}

/**
 * @param {Chart} chart
 * @param {Drawn[]} lines
 * @param {[number, number] | null} range
 * @param {{left: number, right: number, top: number, bottom: number}} margin
 * @param {boolean} touch
 */
export function layout(chart, lines, range, margin, touch) {
  const font = { family: style("--sans"), size: 12, color: style("--muted") };
  const axis = { gridcolor: style("--hair"), zeroline: false, linecolor: style("--hair"), tickfont: font, automargin: false };
  return {
    font, dragmode: touch ? false : "zoom", hovermode: chart.kind === "groups" || chart.kind === "timeline" ? "closest" : "x unified",
    margin: { l: margin.left, r: margin.right, t: margin.top, b: margin.bottom, pad: 0 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, barmode: chart.kind === "bars" ? "stack" : chart.kind === "timeline" ? "overlay" : "group",
    bargap: 0.35, bargroupgap: 0.12,
    hoverlabel: { bgcolor: style("--paper"), bordercolor: style("--hair"), font: { family: font.family, size: 12, color: style("--ink") } },
    xaxis: { ...axis, automargin: chart.kind === "groups", range: ["lines", "stack", "areas"].includes(chart.kind ?? "lines") && lines.length ? stepRange(lines) : undefined, type: chart.kind === "groups" ? "category" : undefined, dtick: chart.kind === "groups" && (lines[0]?.x.length ?? 0) <= 16 ? 1 : undefined, showgrid: false, fixedrange: touch, ticks: "outside", ticklen: 4, tickcolor: style("--hair"), nticks: 7,
      title: { text: plain(chart.x_title ?? "step"), font, standoff: 6 }, hoverformat: ",d" },
    yaxis: { ...axis, fixedrange: true, range: range ?? undefined, nticks: 5, type: chart.log ? "log" : chart.kind === "timeline" ? "category" : "linear",
      tickformat: chart.unit === "share" ? ".0%" : undefined, exponentformat: "power", separatethousands: true,
      ...(chart.log && lines.length ? logTicks(lines) : {}) },
  };
}
