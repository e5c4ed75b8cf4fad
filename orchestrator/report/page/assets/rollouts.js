// The page Rollouts: a browser of completions, a group side by side, and the tokens of one.

import { append, brief, h, plural, signed, visible } from "./dom.js";
import { MODES, largestGap, modesOf, tokenStrip, whyNot } from "./tokens.js";

/** @typedef {import("./tokens.js").Completion} Completion */
/** @typedef {{step: number, split: string, id: string, prompt?: string, answer?: string, source?: string, difficulty?: string, reasons?: string[], completions: Completion[]}} Group */
/** @typedef {{group: Group, completion: Completion, n: number, found: string, gap: number}} Row */

const PAGE = 50;
/** Rows that are listed at once. */

/** @param {any} run */
export function rolloutsPage(run) {
  const { groups, kept, of, rule } = run.rollouts;
  if (!groups.length) {
    return [h("p", { class: "nothing" }, "This run kept no completions: it has none yet, or tracking.save_rollouts was false.")];
  }
  const rows = rowsOf(groups);
  const list = h("div", { class: "rows" });
  const detail = h("div", { class: "detail", id: "detail", tabindex: "-1" });
  const count = h("p", { class: "count", role: "status" });
  const state = { shown: PAGE, found: rows };
  const isRecorded = rows.some(({ completion }) => hasGaps(completion));
  const isDistilled = run.credit?.algorithm?.surrogate === "none";
  const pick = (/** @type {Row} */ row, scroll = true) => {
    for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    list.querySelector(`[data-row="${rows.indexOf(row)}"]`)?.setAttribute("aria-current", "true");
    detail.replaceChildren(...groupView(row, isRecorded, isDistilled));
    if (scroll && window.matchMedia("(max-width: 860px)").matches) detail.scrollIntoView({ behavior: "smooth", block: "start" });
  };
  const fill = () => {
    const listed = state.found.slice(0, state.shown).map((row) => rowView(row, rows.indexOf(row), () => pick(row)));
    const more = state.found.length > state.shown && h("button", { type: "button", class: "more", onclick: () => { state.shown += PAGE; fill(); } }, `Show ${Math.min(PAGE, state.found.length - state.shown)} more`);
    list.replaceChildren();
    append(list, [...listed, more || null]);
  };
  const bar = filterBar(rows, (test, sort) => {
    state.found = rows.filter(test).sort(sort);
    state.shown = PAGE;
    count.textContent = `${plural(state.found.length, "completion")} of ${kept.toLocaleString("en-US")} kept, of ${of.toLocaleString("en-US")} in the run. Numbers are reward · advantage.`;
    fill();
    if (state.found.length) pick(state.found[0], false);
    else detail.replaceChildren(h("p", { class: "nothing" }, "No completion fits these filters."));
  });
  return [
    h("h2", {}, "Completions"),
    bar,
    count,
    h("div", { class: "browser" }, list, detail),
    h("details", { class: "rule" }, h("summary", {}, `Which ${kept.toLocaleString("en-US")} of ${of.toLocaleString("en-US")} completions are kept`), h("p", {}, rule)),
  ];
}

/** @param {Group[]} groups @returns {Row[]} */
function rowsOf(groups) {
  return groups.flatMap((group) => group.completions.map((completion, n) => ({
    group, completion, n, gap: largestGap(completion), found: `${group.prompt ?? ""}\n${completion.text}\n${group.id}`.toLowerCase(),
  })));
}

/** @param {Completion} completion */
const faulty = (completion) => Boolean(completion.faults);
/** @param {Completion} completion */
const hasGaps = (completion) => Boolean(completion.gaps?.length);

/** @type {Record<string, [string, (row: Row) => boolean]>} */
const STATUS = {
  any: ["any outcome", () => true],
  right: ["right", ({ completion }) => completion.right === true],
  wrong: ["wrong", ({ completion }) => completion.right === false],
  cut: ["cut off", ({ completion }) => Boolean(completion.cut)],
  fault: ["timed out or failed", ({ completion }) => faulty(completion)],
};
/** @type {Record<string, [string, (a: Row, b: Row) => number]>} */
const SORTS = {
  step: ["in order", (a, b) => a.group.step - b.group.step || a.group.id.localeCompare(b.group.id) || a.n - b.n],
  advantage: ["largest advantage", (a, b) => Math.abs(b.completion.advantage ?? 0) - Math.abs(a.completion.advantage ?? 0)],
  gap: ["largest gap", (a, b) => b.gap - a.gap],
  reward: ["highest reward", (a, b) => (b.completion.reward ?? 0) - (a.completion.reward ?? 0)],
  longest: ["longest", (a, b) => b.completion.length - a.completion.length],
  last: ["last step first", (a, b) => b.group.step - a.group.step || a.group.id.localeCompare(b.group.id) || a.n - b.n],
};

/**
 * @param {Row[]} rows
 * @param {(test: (row: Row) => boolean, sort: (a: Row, b: Row) => number) => void} apply
 */
function filterBar(rows, apply) {
  const unique = (/** @type {(row: Row) => (string | number)[]} */ of) => [...new Set(rows.flatMap(of))];
  const steps = unique(({ group }) => [group.step]).sort((a, b) => Number(a) - Number(b));
  const tasks = unique(({ group }) => (group.source ? [group.source] : []));
  const markers = unique(({ completion }) => completion.markers);
  const parts = unique(({ completion }) => Object.keys(completion.parts));
  const search = /** @type {HTMLInputElement} */ (h("input", { type: "search", id: "search", placeholder: "text or id" }));
  const split = options("split", [["", "training and held-out"], ["train", "training"], ["held_out", "held-out"]]);
  const step = options("step", [["", "all steps"], ...steps.map((each) => /** @type {[string, string]} */ ([String(each), `step ${each}`]))]);
  const status = options("status", Object.entries(STATUS).map(([name, [label]]) => [name, label]));
  const task = options("task", [["", "all tasks"], ...tasks.map((each) => /** @type {[string, string]} */ ([String(each), String(each)]))]);
  const marker = options("marker", [["", "any behaviour"], ...markers.map((each) => /** @type {[string, string]} */ ([String(each), words(String(each))]))]);
  const reward = options("reward", [["", "any reward"], ["reward", "reward above 0"], ...parts.map((each) => /** @type {[string, string]} */ ([String(each), `${words(String(each))} above 0`]))]);
  const hasGap = rows.some(({ completion }) => hasGaps(completion));
  const gap = options("gap", [["", "any gap"], ...[0.001, 0.01, 0.1, 1].map((size) => /** @type {[string, string]} */ ([String(size), `above ${size} nats`]))]);
  const sort = options("sort", Object.entries(SORTS).filter(([name]) => name !== "gap" || hasGap).map(([name, [label]]) => [name, label]));
  const change = () => {
    const text = search.value.trim().toLowerCase();
    const isFit = STATUS[status.value][1];
    const paid = (/** @type {Completion} */ each) => (reward.value === "reward" ? each.reward : each.parts[reward.value]) ?? 0;
    apply((row) => isFit(row)
      && (!text || row.found.includes(text))
      && (!split.value || row.group.split === split.value)
      && (!step.value || row.group.step === Number(step.value))
      && (!task.value || row.group.source === task.value)
      && (!marker.value || row.completion.markers.includes(marker.value))
      && (!reward.value || paid(row.completion) > 0)
      && (!gap.value || row.gap > Number(gap.value)), SORTS[sort.value][1]);
  };
  search.addEventListener("input", change);
  const selects = [split, step, ...(tasks.length > 1 ? [task] : []), status, ...(markers.length ? [marker] : []), reward, ...(hasGap ? [gap] : []), sort];
  for (const select of selects) select.addEventListener("change", change);
  change();
  return h("form", { class: "filters", role: "search", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
    h("label", {}, h("span", {}, "Search"), search),
    selects.map((select) => h("label", {}, h("span", {}, LABELS[select.id]), select)));
}

/** @type {Record<string, string>} */
const LABELS = { split: "Prompts", step: "Step", status: "Outcome", task: "Task", marker: "Behaviour", reward: "Reward", gap: "Largest gap", sort: "Order" };

/** @param {string} name */
const words = (name) => name.replaceAll("_", " ");

/** @param {string} id @param {[string, string][]} entries */
const options = (id, entries) => /** @type {HTMLSelectElement} */ (h("select", { id }, entries.map(([value, label]) => h("option", { value }, visible(label)))));

/** @param {Completion} completion */
const outcome = (completion) =>
  faulty(completion) ? "fault" : completion.right === null ? "" : completion.right ? "right" : "wrong";

/** @param {Row} row @param {number} index @param {() => void} pick */
function rowView({ group, completion }, index, pick) {
  const kind = outcome(completion);
  const text = visible(completion.text.trim().slice(0, 160)).replace(/\s+/g, " ");
  return h("button", { type: "button", class: "row", "data-row": index, onclick: pick },
    h("span", { class: `mark ${kind}`, title: kind || "neither right nor wrong" }),
    h("span", { class: "text" }, text || "(empty)"),
    h("span", { class: "meta" }, `${group.split === "train" ? "" : "held-out, "}step ${group.step}`, h("br"),
      `${brief(completion.reward)}${completion.advantage === undefined ? "" : ` · ${signed(completion.advantage, 2)}`}`));
}

/**
 * @param {Row} row
 * @param {boolean} isRecorded whether the learner's logprobs are
 * @param {boolean} isDistilled whether advantages move nothing in this run
 * @returns {HTMLElement[]}
 */
function groupView({ group, n }, isRecorded, isDistilled) {
  const place = h("div", {});
  const cards = h("div", { class: "cards", role: "group", "aria-label": "the group's completions" });
  const show = (/** @type {number} */ chosen) => {
    cards.replaceChildren(...group.completions.map((completion, at) => card(completion, at, at === chosen, () => show(at))));
    const missing = isDistilled ? "" : whyNot(group.completions[chosen], group, isRecorded);
    place.replaceChildren(...completionView(group.completions[chosen], modesOf(group.completions[chosen], isDistilled), missing));
  };
  show(n);
  const facts = [
    group.split === "train" ? "training" : "held-out", `step ${group.step}`, group.id, group.difficulty && `difficulty: ${group.difficulty}`,
    group.reasons?.length && `kept as ${group.reasons.join(", ")}`,
  ].filter(Boolean);
  return [
    h("p", { class: "where" }, facts.map((fact) => h("span", {}, visible(String(fact))))),
    h("h3", {}, "Prompt"),
    h("pre", { class: "prompt", dir: "auto", tabindex: "0" }, visible(group.prompt ?? "")),
    group.answer && group.answer !== "{}" ? h("details", {}, h("summary", {}, "What verifies an answer"), h("pre", { dir: "ltr" }, visible(group.answer))) : h("span"),
    h("h3", {}, `The group: ${plural(group.completions.length, "completion")}`),
    cards,
    place,
  ];
}

/** @param {Completion} completion @param {number} at @param {boolean} chosen @param {() => void} pick */
function card(completion, at, chosen, pick) {
  const kind = outcome(completion);
  return h("button", { type: "button", class: "card", "aria-pressed": String(chosen), onclick: pick },
    h("span", { class: `mark ${kind}` }), h("b", {}, brief(completion.reward)),
    h("small", {}, completion.advantage === undefined ? `completion ${at + 1}` : `advantage ${signed(completion.advantage, 2)}`),
    h("small", {}, plural(completion.length, "token")));
}

/** @param {Completion} completion @param {(keyof typeof MODES)[]} modes @param {string} missing why some colourings are */
function completionView(completion, modes, missing) {
  const strip = h("div", {});
  const explained = h("p", { class: "note" });
  const paint = (/** @type {keyof typeof MODES} */ mode) => {
    strip.replaceChildren(tokenStrip(completion, mode));
    explained.textContent = MODES[mode].text;
  };
  const select = /** @type {HTMLSelectElement} */ (h("select", { id: "colour", onchange: () => paint(/** @type {any} */ (select.value)) },
    modes.map((mode) => h("option", { value: mode }, MODES[mode].label))));
  const parts = Object.entries(completion.parts).map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, words(visible(name))), h("td", {}, completion.faults?.[name] ?? brief(value))));
  const said = [
    { right: "right", wrong: "wrong", fault: "not graded", "": "" }[outcome(completion)], completion.cut && "cut off at the limit",
    ...completion.markers.map(words), completion.versions.length && `policy version ${completion.versions.join(", ")}`,
  ].filter(Boolean);
  const made = [h("p", { class: "where" }, said.map((each) => h("span", {}, String(each))))];
  if (modes.length) {
    paint(modes[0]);
    made.push(h("p", { class: "field" }, h("label", { for: "colour" }, "Tokens coloured by "), select), strip, explained, h("p", { class: "note missing" }, missing));
  } else made.push(h("pre", { dir: "auto", tabindex: "0" }, visible(completion.text)));
  made.push(h("h3", {}, "Reward"), h("table", { class: "parts" }, h("tbody", {}, h("tr", {}, h("th", { scope: "row" }, "total"), h("td", {}, brief(completion.reward))), parts,
    completion.advantage === undefined ? null : h("tr", {}, h("th", { scope: "row" }, "advantage"), h("td", {}, signed(completion.advantage, 3))))));
  return made;
}
