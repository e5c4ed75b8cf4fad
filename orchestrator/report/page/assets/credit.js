// The page GRPO: how the rewards of a group become the advantages of its tokens.

import { append, fixed, h, percent, short, signed, visible } from "./dom.js";
import { chartCard, drawWaiting } from "./charts.js";
import { chartSection } from "./learning.js";
import { MODES, tokenStrip } from "./tokens.js";

/** @typedef {{group: number, mean: number, std: number, advantages: Record<string, number[]>, tokens: Record<string, number[]>, recorded: (number|null|undefined)[]}} Example */

const SHORT = 90;

/** @param {any} run */
export function creditPage(run) {
  const { examples, charts, algorithm } = run.credit;
  if (algorithm.surrogate === "none") {
    const said = "This run was distilled: it learns from its teacher's probabilities of each token, and advantages move nothing. Groups without spread teach as much as others.";
    return [h("p", {}, said), charts.length > 0 && chartSection(run, { title: "How sparse are the rewards?", charts })];
  }
  return [
    examples.length > 0 ? h("section", {}, h("h2", {}, "From rewards to advantages"), chooser(run))
      : h("p", { class: "nothing" }, "This run kept no group whose rewards could be explained."),
    h("section", {}, h("h2", {}, "And PPO?"), h("p", {}, algorithm.baseline === "value"
      ? run.rollouts.groups.some((/** @type {any} */ group) => group.completions.some((/** @type {any} */ each) => each.credits))
        ? "This run has a critic, which gives each token an advantage of its own. They stand beside GRPO's below each group above, and colour completions on the page Rollouts."
        : "This run has a critic, but its advantages of single tokens are not recorded, as by earlier versions."
      : "This run has no critic, so that it has no advantages of single tokens by PPO, and none are made up here. A run with learner.algorithm.preset=ppo trains one.")),
    charts.length > 0 && chartSection(run, { title: "How sparse are the rewards?", charts }),
  ];
}

/** @param {any} run */
function chooser(run) {
  const examples = /** @type {Example[]} */ (run.credit.examples);
  const group = (/** @type {Example} */ example) => run.rollouts.groups[example.group];
  const place = h("div", {});
  const select = /** @type {HTMLSelectElement} */ (h("select", { id: "example", onchange: () => show() },
    examples.map((example, n) => h("option", { value: n }, `step ${group(example).step}, ${visible(group(example).id)}${example.std === 0 ? ", without spread" : ""}`))));
  const show = () => {
    const example = examples[Number(select.value)];
    place.replaceChildren(...explanation(run, example, group(example)));
    drawWaiting();
  };
  select.value = String(Math.floor(examples.filter(({ std }) => std > 0).length / 2));
  show();
  return [h("p", { class: "field" }, h("label", { for: "example" }, "Group "), select), place];
}

/** @param {any} run @param {Example} example @param {any} group */
function explanation(run, example, group) {
  const names = Object.keys(example.advantages);
  const x = group.completions.map((/** @type {any} */ each, /** @type {number} */ n) => `${n + 1}`);
  const roles = ["main", "second", "muted"];
  const chart = {
    title: "Advantage of each completion", unit: "advantage", kind: "groups", x_title: "completion",
    lines: names.map((label, n) => ({ label, role: roles[n], x, y: example.advantages[label] })),
    note: "Above 0 a completion becomes likelier, below 0 less likely. Dividing by the standard deviation makes groups count alike, however little their rewards differ.",
  };
  const equal = example.std === 0;
  const said = equal
    ? `All ${group.completions.length} rewards are ${short(example.mean)}: without spread every advantage is exactly 0, and the group teaches nothing.`
    : `The mean reward is ${fixed(example.mean, 3)}, the standard deviation ${fixed(example.std, 3)}. GRPO gives each completion (reward − mean) / (std + 0.0001).`;
  return [
    h("pre", { class: "prompt", dir: "auto", tabindex: "0" }, visible(group.prompt ?? "")),
    h("p", {}, said),
    rewards(group, example, names),
    h("div", { class: "charts one" }, chartCard(run, chart, { wide: true, height: 240 })),
    tokenWeights(run, group, example),
    tokenAdvantages(group, example),
  ];
}

/** What a critic made of each token, beside the one advantage that GRPO gives all of them. @param {any} group @param {Example} example */
function tokenAdvantages(group, example) {
  const name = Object.keys(example.advantages)[0];
  const known = group.completions.flatMap((/** @type {any} */ each, /** @type {number} */ n) => (each.credits ? [{ each, n }] : []));
  if (!known.length) return h("span");
  const place = h("div", {});
  const fill = () => place.hasChildNodes() || append(place, known.map((/** @type {any} */ { each, n }) => [
    h("p", { class: "where" }, h("span", {}, `completion ${n + 1}`), h("span", {}, `${name}: ${signed(example.advantages[name][n], 2)} for every token`)),
    tokenStrip(each, "credit")]));
  return h("details", { id: "critic", ontoggle: fill }, h("summary", {}, "What PPO's critic gives each token"), h("p", { class: "note" }, MODES.credit.text), place);
}

/** @param {any} group @param {Example} example @param {string[]} names */
function rewards(group, example, names) {
  const parts = Object.keys(group.completions[0].parts);
  const recorded = example.recorded.some((each) => each !== null && each !== undefined);
  const heads = ["", "completion", ...parts.map((part) => visible(part).replaceAll("_", " ")), "reward", ...names, ...(recorded ? ["this run's"] : [])];
  const rows = group.completions.map((/** @type {any} */ each, /** @type {number} */ n) => h("tr", {},
    h("th", { scope: "row" }, n + 1),
    h("td", { class: "said" }, visible(each.text.trim().slice(0, SHORT)).replace(/\s+/g, " ") || "(empty)"),
    parts.map((part) => h("td", {}, each.faults?.[part] ?? short(each.parts[part]))),
    h("td", { class: "strong" }, short(each.reward)),
    names.map((name) => h("td", {}, signed(example.advantages[name][n], 2))),
    recorded && h("td", { class: "strong" }, example.recorded[n] === null || example.recorded[n] === undefined ? "–" : signed(/** @type {number} */ (example.recorded[n]), 2))));
  return h("div", { class: "scroll" }, h("table", { class: "dense" }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: head === "completion" ? "said" : false }, head)))), h("tbody", {}, rows)));
}

/** @param {any} run @param {any} group @param {Example} example */
function tokenWeights(run, group, example) {
  const used = run.credit.algorithm.loss_aggregation;
  const names = Object.keys(example.tokens);
  const words = { sequence_mean: "GRPO: mean over each completion", token_mean: "DAPO: mean over all tokens", constant: "Dr. GRPO: over the limit" };
  const heads = ["completion", "tokens", ...names.map((name) => `${words[/** @type {keyof typeof words} */ (name)] ?? name}${name === used ? " (this run)" : ""}`)];
  const largest = Math.max(...names.flatMap((name) => example.tokens[name].map(Math.abs))) || 1;
  const rows = group.completions.map((/** @type {any} */ each, /** @type {number} */ n) => h("tr", {}, h("th", { scope: "row" }, n + 1), h("td", {}, each.length.toLocaleString("en-US")),
    names.map((name) => h("td", {}, signed(100 * example.tokens[name][n] / largest, 0)))));
  return h("details", {}, h("summary", {}, "What a single token gets"),
    h("p", {}, "GRPO's advantage is the same for every token of a completion; how the loss is averaged decides what a token of a long completion weighs. The largest of these weights is 100, were this group alone in the batch."),
    h("div", { class: "scroll" }, h("table", { class: "dense" }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows))));
}

/** @param {any} run */
export function machinesPage(run) {
  const { phases, charts, service } = run.machines;
  const total = phases.reduce((/** @type {number} */ sum, /** @type {[string, number]} */ [, took]) => sum + took, 0);
  const rows = phases.map((/** @type {[string, number]} */ [name, took]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, `${fixed(took, 1)} s`), h("td", {}, percent(took / total))));
  return [
    phases.length > 0 ? h("section", {}, h("h2", {}, "Where the seconds went"), h("table", { class: "parts" }, h("tbody", {}, rows)))
      : h("p", { class: "nothing" }, "This run recorded no times."),
    charts.length > 0 && h("section", {}, h("div", { class: "charts one tall" }, charts.map((/** @type {any} */ chart) => chartCard(run, chart, { wide: true, height: 260 })))),
    service.length > 0 && chartSection(run, { title: "The service", charts: service }),
    run.events.length > 0 && h("section", {}, h("h2", {}, "Events"), h("ul", { class: "plainlist" },
      run.events.map((/** @type {any} */ event) => h("li", {}, h("b", {}, `step ${event.step}`), " ", event.text)))),
  ];
}
