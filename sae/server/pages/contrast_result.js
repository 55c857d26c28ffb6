// What a contrast found: how much of it can be told from chance, and the latents with their responses to every example.

import { fixed, h, number, plural, share, short, svg, visible } from "./dom.js";
import { drawBase64, latentLink } from "./live.js";

const SHOWN = 8;
const LENGTHS_DIFFER = 1.5;
const BESIDE = 6;

/** In words: how many latents pass, what chance does, and what the controls do. */
export function drawFinding(answer, ask) {
  const [a, b] = answer.sets, sizes = `${number(a.names.length)} against ${number(b.names.length)}`;
  const ways = answer.exact ? `all ${number(answer.n_permutations)} ways to deal the examples out` : `${number(answer.n_permutations)} random ways to deal the examples out`;
  const rule = `An effect counts here only if not even one latent in the whole dictionary reaches it in more than 5 % of ${ways}`;
  const finding = answer.smallest_p > 0.05
    ? `With ${sizes} examples no effect can be told from chance: the smallest p that any could have is ${fixed(answer.smallest_p)}. Bring more.`
    : answer.threshold === null
      ? `Nothing can be told from chance with ${sizes} examples: with so many latents, dealing the examples out at random often gives one that separates them perfectly.`
      : answer.n_pass
        ? `${plural(answer.n_pass, "latent")} tell${answer.n_pass === 1 ? "s" : ""} the sets apart beyond chance: an AUC above ${fixed(0.5 + answer.threshold)} or below ${fixed(0.5 - answer.threshold)}.`
        : `No latent tells the sets apart beyond chance; that would take an AUC above ${fixed(0.5 + answer.threshold)} or below ${fixed(0.5 - answer.threshold)}.`;
  const ratio = Math.max(a.positions, b.positions) / Math.max(1, Math.min(a.positions, b.positions));
  return h("section", { class: "part" }, h("p", { class: "finding" }, finding),
    answer.smallest_p > 0.05 ? null : h("p", { class: "note" }, `${rule}. ${rivals(answer)}`),
    answer.shared ? h("p", { class: "note" }, `${plural(answer.shared, "example")} that both labels chose ${answer.shared === 1 ? "was" : "were"} left out.`) : null,
    !ask.pooled && ratio > LENGTHS_DIFFER ? h("p", { class: "note" }, `The sets differ in length: a median of ${number(a.positions)} against ${number(b.positions)} positions. ${answer.pool === "max" ? "The strongest of more positions is larger by itself; compare the means too." : ""}`) : null);
}

/** Whether neurons or random directions do as well as the best latent. */
function rivals({ latents, neuron, random }) {
  const effect = (one) => Math.abs(one.auc - 0.5), best = Math.max(0, ...latents.map(effect));
  const said = [["the best raw neuron", neuron], ["the best of as many random directions", random]].filter(([, one]) => one)
    .map(([name, one]) => `${name} ${effect(one) > best ? "does better" : effect(one) === best ? "does as well" : "does worse"} (AUC ${fixed(one.auc)})`);
  return `Compared with the best latent, ${said.join(", and ")}.`;
}

/** Those that pass, and a few that nearly do. */
function shownOf(latents) {
  return latents.slice(0, latents.filter((one) => one.passes).length + BESIDE);
}

/** The latents that answer more to either set, and the controls under them. */
export function drawDifferences(answer) {
  const titles = ["latent", "AUC − ½", "AUC", "difference", "fires in A", "in B", "p", "every example"];
  const heads = h("thead", null, h("tr", null, titles.map((title, i) => h("th", { scope: "col", class: i > 1 && i < 7 ? `number ${i === 2 ? "" : "spare"}` : null }, title))));
  const part = (title, rows) => [h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: titles.length }, title)), rows];
  const more = shownOf(answer.latents.filter((one) => one.auc > 0.5)), less = shownOf(answer.latents.filter((one) => one.auc <= 0.5));
  const row = (one) => drawRow(one, answer, titles.length);
  const control = (name, one) => one && h("tr", { class: "control" }, h("th", { scope: "row" }, name), h("td", null, effectBar(one.auc - 0.5, answer.threshold, name)), h("td", { class: "number" }, fixed(one.auc)), h("td", { class: "spare", colspan: 3 }), h("td", { class: "number spare" }, number(one.p, 2)), h("td"));
  return h("section", { class: "part" }, h("div", { class: "scroll" }, h("table", { class: "differences" }, heads,
    h("tbody", null, part("more in A", more.length ? more.map(row) : h("tr", null, h("td", { colspan: titles.length, class: "note" }, "none")))),
    h("tbody", null, part("more in B", less.length ? less.map(row) : h("tr", null, h("td", { colspan: titles.length, class: "note" }, "none")))),
    h("tbody", null, part("controls", [
      control(["best raw neuron ", h("a", { href: `#/neuron/${answer.neuron.index}` }, answer.neuron.index)], answer.neuron),
      control("best of as many random directions", answer.random)])))),
  h("p", { class: "note" }, "Bars: AUC − ½, to the right where the latent answers more to A; dashed: the threshold. Difference: of the means, in standard deviations. p: that any latent (of the controls: any neuron, any direction) does as well by chance. Last column: the response to every example, A then B, each from the strongest."));
}

function drawRow(one, answer, width) {
  const open = h("button", { type: "button", class: "rug-button", "aria-expanded": "false", "aria-label": `examples of latent ${one.index}`, onclick: () => {
    const below = row.nextElementSibling?.classList.contains("opened") ? row.nextElementSibling : null;
    open.setAttribute("aria-expanded", String(!below));
    if (below) below.remove();
    else row.after(h("tr", { class: "opened" }, h("td", { colspan: width }, h("div", { class: "both" }, answer.sets.map((set, i) => drawExamples(set, one.values[i], "AB"[i]))))));
  } }, drawRug(one.values));
  const row = h("tr", { class: one.passes ? "passes" : null, "data-latent": one.index },
    h("th", { scope: "row" }, latentLink(one)),
    h("td", null, effectBar(one.auc - 0.5, answer.threshold, `latent ${one.index}`)),
    h("td", { class: "number" }, fixed(one.auc)),
    h("td", { class: "number spare" }, fixed(one.difference)),
    h("td", { class: "number spare" }, share(one.fires[0])), h("td", { class: "number spare" }, share(one.fires[1])),
    h("td", { class: "number spare" }, number(one.p, 2)),
    h("td", null, open));
  return row;
}

/** A bar from the middle, to the right for A and to the left for B, between the lines of the threshold. */
function effectBar(effect, threshold, label) {
  const width = 180, height = 20, at = (x) => width / 2 + x * (width - 4);
  return svg("svg", { class: "effect", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `effect ${number(effect)}`, "data-hint": `AUC − ½ ${number(effect)}` },
    svg("rect", { class: effect < 0 ? "bar negative" : "bar", x: Math.min(at(0), at(effect)), width: Math.abs(at(effect) - at(0)), y: 6, height: 8 }),
    svg("line", { class: "axis", x1: at(0), x2: at(0), y1: 0, y2: height }),
    threshold === null ? null : [-threshold, threshold].map((x) => svg("line", { class: "threshold", x1: at(x), x2: at(x), y1: 0, y2: height })));
}

/** The response to every example as a thin column, the first set's and then the second's. */
function drawRug([a, b]) {
  const width = 150, height = 20, gap = 6, most = Math.max(...a, ...b, 1e-9);
  const each = (width - gap) / (a.length + b.length);
  const path = (values, first) => [...values].sort((x, y) => y - x).map((value, i) => (value > 0 ? `M${(first + (i + 0.5) * each).toFixed(2)} ${height}v${(-value / most * (height - 2)).toFixed(2)}` : "")).join("");
  const start = a.length * each + gap;
  return svg("svg", { class: "rug", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "first", d: path(a, 0), "stroke-width": Math.max(0.6, each * 0.8) }), svg("path", { class: "second", d: path(b, start), "stroke-width": Math.max(0.6, each * 0.8) }),
    svg("line", { class: "axis", x1: 0, x2: a.length * each, y1: height - 0.5, y2: height - 0.5 }), svg("line", { class: "axis", x1: start, x2: width, y1: height - 0.5, y2: height - 0.5 }));
}

function drawExamples(set, values, name) {
  const order = values.map((value, i) => [value, i]).sort((a, b) => b[0] - a[0]).slice(0, SHOWN);
  const told = ([value, i]) => (set.thumbnails ? h("li", { class: "thumb" }, drawBase64(set.thumbnails[i], visible(set.names[i])), h("span", { class: "value" }, fixed(value)))
    : h("li", { class: "said-line" }, h("span", { class: "value" }, fixed(value)), h("bdi", { translate: "no" }, short(visible(set.names[i]), 160))));
  return h("div", null, h("h4", null, `${name}: fires in ${number(values.filter((value) => value > 0).length)} of ${number(values.length)}, strongest first`), h("ul", { class: set.thumbnails ? "thumbs" : "" }, order.map(told)));
}
