// A completion as a strip of tokens, coloured by what was measured of each.

import { fixed, h, percent, signed, visible } from "./dom.js";

/** @typedef {{text: string, length: number, reward: number|null, parts: Record<string, number|null>, right: boolean|null, markers: string[], versions: number[], faults?: Record<string, string>, cut?: boolean, advantage?: number, turns?: [number, number][], lengths?: number[], rest?: string, pieces?: string[], logprobs?: number[], learner?: number[], change?: number[]}} Completion */
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

/** What a strip can be coloured by, with the sentence that explains it. */
export const MODES = {
  logprob: { label: "rollout logprob", text: "The stronger the colour, the less likely the token was when it was sampled." },
  gap: { label: "gap between sampler and learner", text: "The stronger the colour, the more the learner and the sampler disagree about the token." },
  pull: { label: "advantage × (1 − p)", text: "How hard the update pulls at each token: blue makes it likelier, red less likely. A sure token cannot move." },
  change: { label: "advantage × what the update changed", text: "Blue tokens moved as their advantage asked, red ones against it." },
};

/**
 * Which colourings a completion has the values for.
 * @param {Completion} completion
 * @returns {(keyof typeof MODES)[]}
 */
export function modesOf(completion) {
  /** @type {(keyof typeof MODES)[]} */
  const found = [];
  if (completion.logprobs?.length) found.push("logprob");
  if (completion.learner?.length) found.push("gap");
  if (completion.logprobs?.length && completion.advantage !== undefined) found.push("pull");
  if (completion.change?.length && completion.advantage !== undefined) found.push("change");
  return found;
}

/**
 * @param {Completion} completion
 * @param {keyof typeof MODES} mode
 * @returns {Token[]}
 */
export function tokensOf(completion, mode) {
  const advantage = completion.advantage ?? 0;
  return tokenTexts(completion).map((text, n) => {
    const logprob = nats(completion.logprobs, n);
    const learner = nats(completion.learner, n);
    if (completion.turns && !completion.turns.some(([start, end]) => start <= n && n < end)) {
      return { text, value: null, shade: 0, words: "not the policy's: an environment said it" };
    }
    if (logprob === null) return { text, value: null, shade: 0, words: "logprob not recorded" };
    const p = Math.exp(logprob);
    const sampled = `p ${p < 0.001 ? "< 0.1%" : percent(p)}, logprob ${fixed(logprob, 2)}`;
    if (mode === "gap") {
      const gap = learner === null ? null : Math.abs(learner - logprob);
      return { text, value: gap, shade: Math.min(1, (gap ?? 0) / 0.5), words: gap === null ? "gap not recorded" : `gap ${fixed(gap, 2)} nats; ${sampled}` };
    }
    if (mode === "pull") {
      const pull = advantage * (1 - p);
      return { text, value: pull, shade: Math.max(-1, Math.min(1, pull / 1.5)), words: `advantage × (1 − p) = ${signed(pull, 3)}; ${sampled}` };
    }
    if (mode === "change") {
      const moved = (completion.change?.[n] ?? 0) / 100;
      return { text, value: advantage * moved, shade: Math.max(-1, Math.min(1, advantage * moved)), words: `the update moved its logprob by ${signed(moved, 2)}; ${sampled}` };
    }
    return { text, value: logprob, shade: Math.min(1, -logprob / SURPRISE), words: sampled };
  });
}

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
