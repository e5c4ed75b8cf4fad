// A completion as a strip of tokens, coloured by what was measured of each.

import { fixed, h, percent, signed, visible } from "./dom.js";

/** @typedef {{text: string, length: number, reward: number|null, parts: Record<string, number|null>, right: boolean|null, markers: string[], versions: number[], faults?: Record<string, string>, cut?: boolean, advantage?: number, turns?: [number, number][], lengths?: number[], rest?: string, pieces?: string[], logprobs?: number[], gaps?: number[], changes?: number[], credits?: number[]}} Completion */
/** @typedef {{text: string, value: number | null, shade: number, words: string}} Token */

const SURPRISE = 5;
/** Nats at which a token is coloured fully. */

/** @param {Completion} completion @returns {string[]} */
export function tokenTexts(completion) {
  if (completion.pieces) return completion.pieces;
  const letters = Array.from(completion.text + (completion.rest ?? ""));
  let at = 0;
  return (completion.lengths ?? []).map((length) => letters.slice(at, (at += length)).join(""));
}

/** A logprob in nats. @param {number[] | undefined} list @param {number} n @returns {number | null} */
const nats = (list, n) => (list === undefined || list[n] === undefined || list[n] < 0 ? null : -list[n] / 100);

/** A value that is kept in ten-thousandths. @param {number[] | undefined} list @param {number} n @returns {number | null} */
const moved = (list, n) => (list?.[n] === undefined ? null : list[n] / 10_000);

/** The largest gap between sampler and learner, nats; 0 where none is recorded. @param {Completion} completion */
export const largestGap = (completion) => (completion.gaps ?? []).reduce((most, gap) => Math.max(most, Math.abs(gap)), 0) / 10_000;

/** What a strip can be coloured by, with the sentence that explains it. */
export const MODES = {
  logprob: { label: "rollout logprob", text: "The stronger the colour, the less likely the token was when it was sampled." },
  gap: { label: "gap between sampler and learner", text: "How far the learner's logprob before the update was from the sampler's: no colour at 0.0001 nats, a quarter at 0.001, half at 0.01, full from 1 nat. Blue: the learner finds the token likelier, red less likely." },
  credit: { label: "advantage of each token", text: "What the critic, or a KL in the reward, makes of each token: blue ones are made likelier, red ones less likely." },
  pull: { label: "advantage × (1 − p)", text: "How hard the update pulls at each token: blue makes it likelier, red less likely. A sure token cannot move." },
  change: { label: "advantage × what the update changed", text: "The tokens were scored once more after the update. Blue tokens moved as their advantage asked, red ones against it." },
};

/**
 * Which colourings a completion has the values for, and its run a use for.
 * @param {Completion} completion
 * @param {boolean} isDistilled whether advantages move nothing in this run
 * @returns {(keyof typeof MODES)[]}
 */
export function modesOf(completion, isDistilled) {
  /** @type {(keyof typeof MODES)[]} */
  const found = [];
  if (completion.logprobs?.length) found.push("logprob");
  if (completion.gaps?.length) found.push("gap");
  if (completion.credits?.length) found.push("credit");
  if (isDistilled) return found;
  if (completion.logprobs?.length && completion.advantage !== undefined) found.push("pull");
  if (completion.changes?.length && completion.advantage !== undefined) found.push("change");
  return found;
}

/**
 * Why a completion cannot be coloured by what the learner recorded; empty where it can.
 * @param {Completion} completion
 * @param {{split: string}} group
 * @param {boolean} isRecorded whether any completion of the report has the learner's logprobs
 */
export function whyNot(completion, group, isRecorded) {
  if (group.split !== "train") return "No colouring by the learner's logprobs: nothing is learned from held-out completions.";
  if (!isRecorded) return "No colouring by the learner's logprobs: none are recorded, as by earlier versions.";
  if (!completion.gaps?.length) return "No colouring by the learner's logprobs: the update left this completion out, for its advantage is 0 or it is masked.";
  if (!completion.changes?.length) return "What the update changed is known of steps with an evaluation only: their tokens are scored once more.";
  return "";
}

/**
 * @param {Completion} completion
 * @param {keyof typeof MODES} mode
 * @returns {Token[]}
 */
export function tokensOf(completion, mode) {
  return tokenTexts(completion).map((text, n) => {
    const advantage = moved(completion.credits, n) ?? completion.advantage ?? 0;
    const logprob = nats(completion.logprobs, n);
    if (completion.turns && !completion.turns.some(([start, end]) => start <= n && n < end)) {
      return { text, value: null, shade: 0, words: "not the policy's: an environment said it" };
    }
    if (logprob === null) return { text, value: null, shade: 0, words: "logprob not recorded" };
    const p = Math.exp(logprob);
    const sampled = `p ${p < 0.001 ? "< 0.1%" : percent(p)}, logprob ${fixed(logprob, 2)}`;
    if (mode === "gap") {
      const gap = moved(completion.gaps, n);
      if (gap === null) return { text, value: null, shade: 0, words: "gap not recorded" };
      const size = Math.abs(gap) < 0.0001 ? "below 0.0001" : signed(gap, 4);
      return { text, value: gap, shade: Math.sign(gap) * gapShade(gap), words: `learner − sampler: ${size} nats; ${sampled}` };
    }
    if (mode === "credit") {
      return { text, value: advantage, shade: Math.max(-1, Math.min(1, advantage / 1.5)), words: `advantage ${signed(advantage, 3)}; ${sampled}` };
    }
    if (mode === "pull") {
      const pull = advantage * (1 - p);
      return { text, value: pull, shade: Math.max(-1, Math.min(1, pull / 1.5)), words: `advantage × (1 − p) = ${signed(pull, 3)}; ${sampled}` };
    }
    if (mode === "change") {
      const change = moved(completion.changes, n);
      if (change === null) return { text, value: null, shade: 0, words: "change not recorded" };
      const value = advantage * change;
      return { text, value, shade: Math.max(-1, Math.min(1, 4 * value)), words: `the update moved its logprob by ${signed(change, 4)}: advantage × change = ${signed(value, 4)}; ${sampled}` };
    }
    return { text, value: logprob, shade: Math.min(1, -logprob / SURPRISE), words: sampled };
  });
}

/** Gaps span orders of magnitude: from 0 at 0.0001 nats to 1 at 1 nat. @param {number} gap */
const gapShade = (gap) => Math.max(0, Math.min(1, 1 + Math.log10(Math.max(1e-9, Math.abs(gap))) / 4));

/**
 * Make the strip, which the arrow keys walk along.
 * @param {Completion} completion
 * @param {keyof typeof MODES} mode
 */
export function tokenStrip(completion, mode) {
  const tokens = tokensOf(completion, mode);
  const readout = h("output", { class: "readout" }, `${tokens.length} tokens${completion.turns ? `, ${completion.length} of them the policy's` : ""}. Point at one, or walk with the arrow keys.`);
  let current = -1;
  const spans = tokens.map(({ text, shade, words }, n) => {
    const span = h("span", { class: shade < 0 ? "token minus" : "token", title: words }, visible(text).replaceAll("\n", "⏎\n"));
    if (shade) span.style.setProperty("--shade", `${Math.round(Math.abs(shade) * 100)}%`);
    span.addEventListener("pointerenter", () => point(n));
    span.addEventListener("click", () => point(n));
    return span;
  });
  const point = (/** @type {number} */ n) => {
    spans[current]?.classList.remove("current");
    current = Math.max(0, Math.min(spans.length - 1, n));
    spans[current]?.classList.add("current");
    readout.textContent = `token ${current + 1} of ${spans.length}: ${tokens[current]?.words ?? ""}`;
  };
  const walk = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    point(current + step);
    spans[current]?.scrollIntoView({ block: "nearest" });
  };
  const strip = h("div", { class: "strip", tabindex: "0", role: "group", "aria-label": "tokens", dir: "ltr", onkeydown: walk }, spans);
  return h("div", {}, strip, readout);
}
