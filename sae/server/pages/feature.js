// A card as a page: with its neighbours in number, a way to quote it, and a second card beside it.

import { drawCard } from "./card.js";
import { h, number, short, visible } from "./dom.js";
import { drawExplanations } from "./explaining.js";
import { drawMentions } from "./lab.js";

const AFTER_PAINT = 400;

/** The page of one card. */
export async function drawFeature({ source, about, kind, index }) {
  const [card, asks] = await Promise.all([source.card(kind, index), source.asks()]);
  const last = (about.counts[`${kind}s`] ?? 0) - 1;
  const element = oneCard(source, card, {
    tools: [steps(kind, index, last), tools(about, asks, kind, index)],
    first: drawExplanations(source, kind, index, Boolean(card.held_out)),
  });
  element.querySelector(".foot").prepend(drawMentions(source, about, kind, index));
  setTimeout(() => { for (const beside of [index + 1, index - 1]) if (beside >= 0 && beside <= last) source.card(kind, beside).catch(() => null); }, AFTER_PAINT);
  return element;
}

/** Two cards side by side. */
export async function drawComparison({ source, first, second }) {
  const cards = await Promise.all([first, second].map(({ kind, index }) => source.card(kind, index)));
  return h("div", { class: "comparison" }, cards.map((card) => oneCard(source, card, {
    tools: h("a", { href: `#/${card.kind}/${card.index}` }, "alone"), first: drawExplanations(source, card.kind, card.index, Boolean(card.held_out)),
  })));
}

/** A card and nothing else, for another page's frame. */
export async function drawAlone({ source, kind, index }) {
  return oneCard(source, await source.card(kind, index), {});
}

function oneCard(source, card, more) {
  const named = [];
  const element = drawCard(card, {
    imageOf: source.image,
    linkTo: (kind, index) => `#/${kind}/${index}`,
    nameOf: (kind, index) => {
      const span = h("span", { class: "named" }, `${kind} ${index}`);
      named.push({ kind, index, span });
      return span;
    },
    ...more,
  });
  nameAll(source, card, named);
  return element;
}

/** Put titles in the place of numbers, once they are here. */
async function nameAll(source, card, named) {
  for (const kind of new Set(named.map((one) => one.kind))) {
    const indices = [...new Set(named.filter((one) => one.kind === kind).map((one) => one.index))];
    const titles = await source.titles(kind, indices, card).catch(() => ({}));
    for (const one of named) {
      if (one.kind !== kind || !titles[one.index]) continue;
      const title = visible(titles[one.index]);
      one.span.replaceChildren(h("span", { class: "index" }, one.index), " ", h("bdi", null, short(title, 60)));
      one.span.title = `${kind} ${one.index}: ${short(title, 200)}`;
    }
  }
}

function steps(kind, index, last) {
  const step = (to, sign, label, key) => h("a", { class: "step", href: to >= 0 && to <= last ? `#/${kind}/${to}` : null, "aria-label": label, "aria-disabled": to < 0 || to > last ? "true" : null, title: `${label} (${key})`, rel: to > index ? "next" : "prev" }, sign);
  return h("span", { class: "steps" }, step(index - 1, "←", "previous", "k"), h("span", null, `of ${number(last + 1)}`), step(index + 1, "→", "next", "j"));
}

function tools(about, asks, kind, index) {
  const other = h("input", { inputmode: "numeric", pattern: "[0-9]+", required: true, size: 7, "aria-label": "number of the other card", placeholder: "number" });
  const compare = h("form", { class: "inline", hidden: true, onsubmit: (event) => { event.preventDefault(); location.hash = `#/compare/${kind}/${index}/${kind}/${Number(other.value)}`; } }, other, h("button", { class: "plain", type: "submit" }, "Show both"));
  const code = snippet(about, kind, index);
  const quote = h("div", { class: "quote", hidden: true }, h("pre", null, h("code", { translate: "no" }, code)), h("button", { class: "plain", type: "button", onclick: (event) => copy(code, event.target) }, "Copy"));
  const toggle = (name, panel, focus) => h("button", { type: "button", class: "link", "data-tool": name, "aria-expanded": "false", onclick: (event) => {
    panel.hidden = !panel.hidden;
    event.currentTarget.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) focus?.focus();
  } }, name);
  const circuit = asks.circuit && kind === "latent" ? h("a", { href: `#/circuit/${kind}/${index}` }, "circuit") : null;
  const steer = asks.steer && kind === "latent" ? h("a", { href: `#/steer/${kind}/${index}` }, "steer") : null;
  return h("span", { class: "tools" }, circuit, steer, toggle("compare", compare, other), toggle("code", quote, null), compare, quote);
}

/** What finds this card again in Python. */
function snippet(about, kind, index) {
  const shelf = kind === "latent" ? `catalog[${index}]` : `catalog.shelf(${JSON.stringify(kind)})[${index}]`;
  return `from sae.features.catalog import Catalog\n\ncatalog = Catalog.open(${JSON.stringify(about.path ?? "CATALOG")})\ncard = ${shelf}`;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Pages from files may not reach the clipboard: mark the text, so that one key press copies it.
    getSelection().selectAllChildren(button.previousSibling);
    button.textContent = "Marked: press Ctrl+C";
  }
}
