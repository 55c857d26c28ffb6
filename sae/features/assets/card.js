// Draws one card from its JSON, anywhere: in the pages, in the static export, in a notebook's frame.

import { h, installHints, number, share, short, visible } from "./dom.js";
import { carried, examples, facets, labels, mixture, neighbours, neurons, scores, statistics, writes } from "./sections.js";

const MAIN = [["mixture", mixture], ["carried", carried], ["examples", examples]];
const SIDE = [["statistics", statistics], ["writes", writes], ["labels", labels], ["facets", facets], ["scores", scores]];
const FOOT = [["neighbours", neighbours], ["neurons", neurons]];

const ALONE = {
  imageOf: () => null,
  linkTo: () => null,
  nameOf: (kind, index) => `${kind} ${index}`,
  home: null,
};

/**
 * Draw a card.
 *
 * options: imageOf(name) -> address or null; linkTo(kind, index) -> address or null; nameOf(kind, index) -> text or node;
 * tools: elements beside the title; first: elements that come before the side's sections.
 */
export function drawCard(card, options = {}) {
  const all = { ...ALONE, ...options };
  const draw = ([name, make]) => (card[name] ? make(card[name], card, all) : null);
  return h("article", { class: `card ${card.kind}`, lang: "en" },
    h("header", null,
      h("p", { class: "kicker" }, h("span", null, `${card.kind} ${number(card.index)}`), all.tools),
      h("h1", { translate: "no", elementtiming: "card" }, h("bdi", null, short(visible(card.title), 160))),
      card.statistics && drawFacts(card.statistics)),
    h("div", { class: "columns" },
      h("div", { class: "main" }, MAIN.map(draw)),
      h("div", { class: "side" }, all.first, SIDE.map(draw))),
    h("div", { class: "foot" }, FOOT.map(draw)));
}

function drawFacts(known) {
  const facts = [
    ["fires on", share(known.rate)], ["vectors seen", known.n_vectors], ["strongest", known.max], ["mean when on", known.mean],
  ].filter(([, value]) => value !== undefined && value !== null);
  return h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", null,
    h("dt", null, name), h("dd", null, typeof value === "number" ? number(value) : value))));
}

/** Draw the card that a self-contained page carries as JSON. */
export function drawEmbedded(page) {
  const { card, images } = JSON.parse(page.getElementById("data").textContent);
  page.getElementById("card").append(drawCard(card, { imageOf: (name) => images[name] ?? null }));
  installHints(page.body);
}
