// The page: its header, the run that is shown, and which of its pages.

import { append, h } from "./dom.js";
import { drawAgain, drawWaiting, forgetCharts } from "./charts.js";
import { unpackColumns } from "./columns.js";
import { comparePage } from "./compare.js";
import { creditPage, machinesPage } from "./credit.js";
import { emergencePage } from "./emergence.js";
import { answersPage, evaluationPage } from "./evaluation.js";
import { learningPage } from "./learning.js";
import { rolloutsPage } from "./rollouts.js";
import { summaryPage } from "./summary.js";

const data = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent ?? "{}");
for (const run of data.runs ?? []) unpackColumns(run);

/** @type {[string, string, (run: any) => (Node | null | false | undefined)[]][]} */
const PAGES = data.evaluation ? [
  ["evaluation", "Figures", () => evaluationPage(data)],
  ["answers", "Answers", () => answersPage(data)],
] : [
  ["summary", "Summary", summaryPage],
  ["learning", "Learning", learningPage],
  ["emergence", "Emergence", emergencePage],
  ["rollouts", "Rollouts", rolloutsPage],
  ["grpo", "GRPO explained", creditPage],
  ["time", "Time", machinesPage],
  ...(data.runs?.length > 1 ? [/** @type {[string, string, () => Node[]]} */ (["compare", "Compare", () => comparePage(data)])] : []),
];

let current = 0;
const main = h("main", { id: "main", tabindex: "-1" });
const nav = h("nav", { "aria-label": "pages" });
/** @type {Map<string, HTMLElement>} */
const made = new Map();

/** The run that is shown; none in the report of an evaluation. */
const subject = () => data.runs?.[current];

/** The page that the address names. */
const asked = () => PAGES.find(([id]) => `#${id}` === location.hash) ?? PAGES[0];

/** @param {string} id */
function page(id) {
  let section = made.get(id);
  if (!section) {
    const [, title, make] = PAGES.find(([each]) => each === id) ?? PAGES[0];
    section = h("div", { class: "page", id: `page-${id}`, "aria-label": title });
    append(section, make(subject()));
    made.set(id, section);
    main.append(section);
  }
  return section;
}

function route() {
  const [id, title] = asked();
  page(id);
  for (const [name, section] of made) section.hidden = name !== id;
  for (const link of nav.querySelectorAll("a")) {
    if (link.getAttribute("href") === `#${id}`) {
      link.setAttribute("aria-current", "page");
      nav.scrollLeft = link.offsetLeft - nav.offsetLeft - (nav.clientWidth - link.clientWidth) / 2; // on a phone
    } else link.removeAttribute("aria-current");
  }
  document.title = `${subject()?.name ?? "evaluation"} · ${title} · Rayzero report`;
  drawWaiting();
}

/** @param {number} index */
function showRun(index) {
  current = index;
  forgetCharts();
  made.clear();
  main.replaceChildren();
  route();
}

function runChoice() {
  if (!(data.runs?.length > 1)) return h("span", { class: "run" }, subject()?.name ?? "evaluation");
  const select = /** @type {HTMLSelectElement} */ (h("select", { id: "run", "aria-label": "run", onchange: () => showRun(Number(select.value)) },
    data.runs.map((/** @type {any} */ run, /** @type {number} */ n) => h("option", { value: n }, run.name))));
  return select;
}

append(nav, PAGES.map(([id, title]) => h("a", { href: `#${id}` }, title)));
/** @type {HTMLElement} */ (document.getElementById("report")).append(
  h("a", { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => { event.preventDefault(); main.focus(); } }, "to the page"),
  h("header", { class: "top" }, h("div", {}, h("span", { class: "brand" }, "rayzero"), runChoice(), nav)),
  main,
  h("footer", {}, `Made ${data.made} by Rayzero ${data.version} from recorded files. Nothing is loaded and nothing is sent.`),
);

window.addEventListener("hashchange", () => { route(); window.scrollTo(0, 0); });
window.addEventListener("load", () => drawWaiting());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
window.addEventListener("beforeprint", () => {
  document.documentElement.classList.add("printing");
  for (const [id] of PAGES) {
    const isLong = id === "rollouts" || id === "answers";
    if (isLong && !made.has(id)) continue;
    const section = page(id);
    main.append(section); // in order, whatever was looked at first
    if (!isLong) section.hidden = false;
  }
  drawWaiting(true);
  drawAgain();
});
window.addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printing");
  route();
  drawAgain();
});

let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  drawAgain();
});
route();
