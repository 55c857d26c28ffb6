// Turns the address into a page. Addresses are fragments, so the same links work from a server, a static host or a disk.

import { drawCircuit } from "./circuit.js";
import { drawAsk } from "./asking.js";
import { drawContrast } from "./contrasting.js";
import { drawBlind } from "./blind.js";
import { h, installHints, visible } from "./dom.js";
import { drawAlone, drawComparison, drawFeature } from "./feature.js";
import { fileSource } from "./file_source.js";
import { drawFound } from "./finding.js";
import { drawLab, drawLabFinding } from "./lab.js";
import { drawLabelling } from "./label.js";
import { drawOverview } from "./overview.js";
import { serverSource } from "./server_source.js";
import { drawSteer } from "./steer.js";

const THEME = "sae-theme";
const NAME = /^[A-Za-z0-9][A-Za-z0-9._=+-]{0,119}$/;
const source = document.documentElement.dataset.source === "files" ? fileSource() : serverSource();
const page = document.getElementById("page");
let shown = null, turns = 0;

/** What an address asks for: the function that draws it, what it needs, and a title. */
function read(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  const words = path.split("/").filter(Boolean);
  const card = (kind, index) => (["latent", "neuron", "direction"].includes(kind) && /^\d{1,12}$/.test(index ?? "") ? { kind, index: Number(index) } : null);
  if (!words.length) return { draw: drawOverview, needs: { kind: "latent" }, title: "" };
  if (words[0] === "cards" && card(words[1], "0")) return { draw: drawOverview, needs: { kind: words[1] }, title: `${words[1]}s` };
  if (words[0] === "search") return { draw: drawFound, needs: { text: new URLSearchParams(query).get("q") ?? "" }, title: "search" };
  if (words[0] === "ask" && words.length === 1) return { draw: drawAsk, needs: { asked: new URLSearchParams(query) }, title: "ask" };
  if (words[0] === "contrast" && words.length === 1) return { draw: drawContrast, needs: { asked: new URLSearchParams(query) }, title: "contrast" };
  if (words[0] === "lab" && words.length === 1) return { draw: drawLab, needs: {}, title: "laboratory" };
  if (["lab", "label"].includes(words[0]) && words.length === 2 && NAME.test(words[1])) return { draw: words[0] === "lab" ? drawLabFinding : drawLabelling, needs: { name: words[1] }, title: words.join(" ") };
  if (words[0] === "steer" && words[1] === "latent" && words.length === 3 && card(words[1], words[2])) return { draw: drawSteer, needs: card(words[1], words[2]), title: words.join(" ") };
  if (words[0] === "embed" && card(words[1], words[2])) return { draw: drawAlone, needs: card(words[1], words[2]), title: words.slice(1).join(" "), alone: true };
  if (words[0] === "circuit" && words.length === 3 && card(words[1], words[2])) return { draw: drawCircuit, needs: card(words[1], words[2]), title: words.join(" ") };
  if (words[0] === "compare" && card(words[1], words[2]) && card(words[3], words[4])) {
    return { draw: drawComparison, needs: { first: card(words[1], words[2]), second: card(words[3], words[4]) }, title: `${words[2]} and ${words[4]}` };
  }
  if (words[0] === "blind" && words.length === 4 && card(words[1], words[2])) return { draw: drawBlind, needs: { ...card(words[1], words[2]), id: words[3] }, title: `blind test of ${words[1]} ${words[2]}` };
  const needs = words.length === 2 ? card(words[0], words[1]) : null;
  return needs ? { draw: drawFeature, needs, title: words.join(" "), card: needs } : null;
}

async function show() {
  const asked = location.hash, target = read(asked), turn = ++turns;
  page.setAttribute("aria-busy", "true");
  let element;
  try {
    if (!target) throw new Error("There is no such page.");
    // Both are asked for at once; whoever draws the card meets its error.
    if (target.card) source.card(target.card.kind, target.card.index).catch(() => null);
    const about = await source.about();
    nameHome(about);
    element = await target.draw({ source, about, ...target.needs });
    document.title = [target.title, about.subject].filter(Boolean).join(" · ");
  } catch (error) {
    element = h("div", { class: "missing-page" }, h("h1", null, "Not here"), h("p", null, visible(error.message)), h("p", null, h("a", { href: "#/" }, "To the overview")));
  }
  // Somebody may have gone on while this page was being made.
  if (turn !== turns) return;
  shown = target;
  document.body.classList.toggle("alone", Boolean(target?.alone));
  page.replaceChildren(element);
  page.removeAttribute("aria-busy");
  page.dataset.shown = asked || "#/";
  for (const link of document.querySelectorAll(".bar .places a")) link.toggleAttribute("aria-current", asked.split("?")[0] === link.getAttribute("href"));
  scrollTo(0, 0);
}

function nameHome(about) {
  const home = document.getElementById("home");
  home.replaceChildren(h("strong", null, visible(about.subject)), " ", h("span", null, visible(about.hookpoint)));
}

function step(by) {
  page.querySelector(`.step[rel="${by > 0 ? "next" : "prev"}"][href]`)?.click();
}

const KEYS = {
  j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1),
  "/": () => document.querySelector("#search input").focus(),
  c: () => page.querySelector('[data-tool="compare"]')?.click(),
  e: () => page.querySelector(".explanations textarea")?.focus(),
  h: () => page.classList.toggle("no-veil"),
  o: () => { location.hash = "#/"; },
  ...Object.fromEntries([..."ynu123456789"].map((key) => [key, () => page.querySelector(`[data-key="${key}"]`)?.click()])),
  "?": () => document.getElementById("help").showModal(),
};

function installKeys() {
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest?.("input, textarea, select, dialog, [contenteditable]");
    const scrolling = event.key.startsWith("Arrow") && event.target.closest?.(".scroll, .viewport");
    if (writing || scrolling || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
}

function installTheme() {
  const root = document.documentElement;
  const chosen = localStorage.getItem(THEME);
  if (chosen) root.dataset.theme = chosen;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem(THEME, root.dataset.theme);
    dispatchEvent(new Event("themechange"));
  });
}

installTheme();
installKeys();
installHints(document.body);
document.getElementById("keys").addEventListener("click", KEYS["?"]);
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); page.focus(); });
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = event.target.elements.q.value.trim();
  if (text) location.hash = `#/search?${new URLSearchParams({ q: text })}`;
});
addEventListener("hashchange", show);
show();
