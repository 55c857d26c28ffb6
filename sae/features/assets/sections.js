// The sections of a card, each a function from its JSON to an element. A card without a section shows nothing for it.

import { barList, histogram, levelColumns, strip } from "./charts.js";
import { cut, fixed, h, number, plural, share, short, visible } from "./dom.js";
import { drawExamples } from "./examples.js";

/** A part of the card with its heading; `note` says in a few words how to read it. */
function part(name, title, note, ...body) {
  return h("section", { class: `part ${name}` }, h("h2", null, title), note && h("p", { class: "note" }, note), body);
}

function small(title, ...body) {
  return h("div", { class: "small" }, h("h3", null, title), body);
}

export function statistics(section, card) {
  const unit = card.kind === "neuron" ? "this neuron" : "it";
  return part("statistics", "Activations", null,
    h("div", { class: "multiples" },
      section.histogram && histogram(section.histogram, { label: `when ${unit} fires, log scale`, logEdges: true }),
      section.linear && histogram(section.linear, { label: "linear scale, counts as logarithms", logCounts: true })));
}

const KINDS_OF_EXAMPLES = [
  ["near", "Nearly on", "highest before the threshold, without firing"],
  ["random", "At random", "drawn from all examples"],
  ["negative", "Most negative", "lowest before the threshold: what it points away from"],
];

export function examples(section, card, options) {
  const scale = Math.max(card.statistics?.max ?? 0, ...(section.top ?? []).map((one) => one.value), 1e-9);
  const draw = (list, more = {}) => drawExamples(list, { scale, imageOf: options.imageOf, ...more });
  const ranges = (list, name) => {
    const filled = list.filter((range) => range.examples.length).reverse();
    return h("div", { class: filled[0]?.examples[0].tokens ? "ranges" : "ranges pictures" }, filled.map((range) => h("div", { class: "range" },
      h("h4", null, name(range)), draw(range.examples, { compact: true }))));
  };
  const percent = ({ low, high }) => `${number(low * 100)}–${number(high * 100)} %`, between = ({ low, high }) => `${number(low)} to ${number(high)}`;
  return part("examples", "Examples", null,
    section.top?.length ? long(section.top, draw, section.top[0].tokens ? 10 : 12) : null,
    section.quantiles?.length ? folded("Across its range", "by share of firings below", () => ranges(section.quantiles, percent), true) : null,
    section.levels?.length ? folded("By strength", "levels of equal width", () => ranges(section.levels, between)) : null,
    KINDS_OF_EXAMPLES.map(([name, title, note]) => (section[name]?.length ? folded(title, note, () => draw(section[name], { compact: true })) : null)));
}

/** Something that opens at a press, and is drawn only then; what is open from the start is drawn after the first paint. */
function folded(title, note, make, open = false) {
  const details = h("details", { open }, h("summary", null, title, h("span", { class: "note" }, note)));
  const drawOnce = () => { if (details.open && details.childElementCount === 1) details.append(make()); };
  details.addEventListener("toggle", drawOnce);
  return details;
}

/** The first few of a list, the rest at a press. */
function long(list, draw, first) {
  if (list.length <= first + 2) return draw(list);
  const holder = h("div", null, draw(list.slice(0, first)));
  const more = h("button", { class: "more", type: "button" }, `${number(list.length - first)} more`);
  more.addEventListener("click", () => more.replaceWith(draw(list.slice(first))));
  holder.append(more);
  return holder;
}

export function writes(section) {
  const tokens = (list) => list.map(([text, value]) => ({ name: h("code", { translate: "no" }, cut(visible(text), 40)), value, hint: cut(visible(text), 200) }));
  const phrases = (list) => list.map(([text, value]) => ({ name: short(visible(text), 120), value }));
  const most = Math.max(...["up", "down"].flatMap((side) => (section[side] ?? []).map(([, value]) => Math.abs(value))), 1e-12);
  return part("writes", "What it writes", null,
    section.loss && h("p", { class: "note" }, `Taking it out changes the loss by ${section.loss.ablation > 0 ? "+" : ""}${number(section.loss.ablation)} nats per token where it fires (${plural(section.loss.n, "token")}).`),
    section.alignment !== undefined && h("p", { class: "note" }, `Alignment in the joint space ${number(section.alignment)}.`),
    h("div", { class: section.captions ? "multiples broad" : "multiples" },
      section.up?.length ? small("raises", barList(tokens(section.up), { most })) : null,
      section.down?.length ? small("lowers", barList(tokens(section.down), { most })) : null,
      section.captions?.length ? small("captions near it", barList(phrases(section.captions))) : null,
      section.words?.length ? small("words near it", barList(phrases(section.words))) : null),
    section.histogram && histogram(section.histogram, { label: "effect on all logits, counts as logarithms", logCounts: true, mark: 0 }));
}

function pointing(kind, list, options, first = 8) {
  return barList(list.slice(0, first).map(([index, value]) => ({ name: options.nameOf(kind, index), value, link: options.linkTo(kind, index) })));
}

export function neurons(section, card, options) {
  const lists = [["reads", "reads"], ["writes", "writes"], ["correlated", "goes with"]];
  return part("neurons", "Neurons", section.share === undefined ? null : `${share(section.share)} of its direction lies on the strongest.`,
    h("div", { class: "multiples" }, lists.map(([name, title]) => section[name]?.length ? small(title, pointing("neuron", section[name], options)) : null)));
}

export function neighbours(section, card, options) {
  const lists = [["decoder", card.kind === "latent" ? "by direction" : "by what they write"], ["encoder", "by what they read"], ["coactivation", "by firing together"], ["examples", "by shared examples"]];
  const family = (name, title) => (section[name] ?? []).map((one) => small([`${title} in `, h("bdi", { class: "dictionary", translate: "no" }, short(visible(one.dictionary), 60))],
    barList(one.latents.slice(0, 8).map(([index, value]) => ({ name: `latent ${index}`, value })))));
  return part("neighbours", card.kind === "latent" ? "Latents like it" : "Latents near it", null,
    h("div", { class: "multiples" }, lists.map(([name, title]) => section[name]?.length ? small(title, pointing("latent", section[name], options)) : null),
      family("parents", "parents"), family("children", "children")));
}

export function carried(section, card, options) {
  const shares = section.latents.map(([, value]) => value), n = shares.length;
  const random = (count) => (section.control.length >= count ? `, of a random direction ${share(Math.max(0, section.control[count - 1]))}` : "");
  const told = [`The best latent explains ${share(Math.max(0, shares[0]))} of the variance along it${random(1)}`, n > 1 ? `the best ${number(n)} explain ${share(Math.max(0, shares[n - 1]))}${random(n)}` : null];
  return part("carried", "What the dictionary has of it", `${told.filter(Boolean).join("; ")}. Measured on vectors that had no part in choosing them.`,
    small("explained, as one latent after another is added", barList(section.latents.map(([index, value]) => ({ name: options.nameOf("latent", index), value, link: options.linkTo("latent", index) })), { most: 1 })));
}

export function labels(section) {
  return part("labels", "Labels it answers to", "Dot: AUC of this card. Tick: the best control. Columns: precision by level of activation.",
    h("div", { class: "scroll" }, h("table", null,
      h("thead", null, h("tr", null, ["label", "AUC, from ½ to 1", "", "precision"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, section.slice(0, 12).map((one) => h("tr", null,
        h("th", { scope: "row" }, short(visible(one.label), 60)),
        h("td", null, strip({ value: one.auc, control: one.auc_control ?? null, low: 0.5, label: "AUC" })),
        h("td", { class: "number" }, fixed(one.auc)),
        h("td", null, one.levels?.length ? levelColumns(one.levels, one.label) : number(one.average_precision))))))));
}

export function facets(section) {
  const names = Object.keys(section);
  const concepts = [...new Set(names.flatMap((name) => Object.keys(section[name])))];
  const strongest = (concept) => Math.max(...names.map((name) => section[name][concept] ?? 0));
  concepts.sort((a, b) => strongest(b) - strongest(a));
  return part("facets", "Facets", "AUC for a concept as each facet shows it; ½ is chance.",
    h("div", { class: "scroll" }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "concept"), names.map((name) => h("th", { scope: "col", class: "number" }, visible(name))))),
      h("tbody", null, concepts.slice(0, 12).map((concept) => h("tr", null, h("th", { scope: "row" }, short(visible(concept), 40)),
        names.map((name) => {
          const value = section[name][concept];
          return h("td", { class: "number shaded", vars: { "--lit": Math.max(0, ((value ?? 0.5) - 0.5) * 2).toFixed(3) } }, value === undefined || value === null ? "–" : value.toFixed(2));
        })))))));
}

export function scores(section) {
  return part("scores", "Scores", "Dot: this card. Tick and band: the strongest control and its 95 % interval.",
    h("table", null, h("tbody", null, Object.entries(section).map(([name, one]) => {
      const band = one.low === undefined || one.low === null ? null : [one.low, one.high];
      const values = [0, one.value, one.control ?? 0, ...(band ?? [])];
      return h("tr", null, h("th", { scope: "row" }, name.replaceAll("_", " ")),
        h("td", null, strip({ value: one.value, control: one.control ?? null, band, low: Math.min(...values), high: Math.max(1, ...values), label: name })),
        h("td", { class: "number", "data-hint": one.against ? `control: ${visible(one.against)} ${number(one.control)}` : null }, fixed(one.value)));
    }))));
}

export function mixture(section, card, options) {
  return part("mixture", "What it mixes", "Each concept the neuron answers to, and the latents that carry it apart: AUC of the latent, and its share of the part's variance.",
    h("ol", { class: "mixture" }, section.parts.map((one) => h("li", null,
      h("h3", null, short(visible(one.label), 80), h("span", { class: "verdict" }, one.resolved ? "resolved" : "not resolved")),
      h("div", { class: "before-after" },
        h("span", { class: "note" }, `neuron, AUC ${number(one.auc)}`), strip({ value: one.auc, low: 0.5, label: "the neuron's AUC" }),
        one.variance_explained === undefined ? null : h("span", { class: "note" }, `${share(one.variance_explained)} of variance explained`)),
      one.latents?.length ? h("ul", { class: "carriers" }, one.latents.map(([index, auc, weight]) => h("li", null,
        h("a", { href: options.linkTo("latent", index) }, options.nameOf("latent", index)),
        strip({ value: auc, low: 0.5, label: "AUC" }), h("span", { class: "note" }, `AUC ${number(auc)}${weight === undefined || weight === null ? "" : ` · ${share(weight)}`}`)))) : h("p", { class: "note" }, "no latent carries it")))),
    section.unresolved === undefined || section.unresolved === null ? null : h("p", { class: "unresolved" }, `${share(section.unresolved)} stays unresolved.`));
}
