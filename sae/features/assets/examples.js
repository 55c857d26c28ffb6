// Examples of a card: text as concordance lines, images under a veil that lifts where the latent fires.

import { cut, fixed, h, number, visible } from "./dom.js";

const LONGEST_TOKEN = 60;
const BESIDE = 14;
const LABELLED_SHARE = 0.35;

/** Draw a list of examples; `scale` is the activation that is shaded fully, `imageOf` turns a name into an address. */
export function drawExamples(references, { scale, imageOf, compact = false }) {
  if (references[0].tokens) return h("ul", { class: "lines" }, references.map((one) => h("li", null, drawLine(one, scale))));
  return h("ul", { class: compact ? "frames compact" : "frames" }, references.map((one) => h("li", null, drawFrame(one, imageOf))));
}

/** One text: the strongest token in the middle of the line; a press opens all that is known of its context. */
function drawLine(one, scale) {
  const peak = Math.max(0, Math.min(one.tokens.length - 1, one.position - (one.start ?? 0)));
  const token = (i, limit) => drawToken(one, i, scale, limit, i === peak);
  const range = (from, to, limit) => Array.from({ length: Math.max(0, to - from) }, (_, i) => token(from + i, limit));
  const line = h("button", { class: "line", type: "button", "aria-expanded": "false", title: null },
    h("span", { class: "value" }, fixed(one.value)),
    h("span", { class: "text", translate: "no" },
      h("span", { class: "before" }, h("bdi", null, range(Math.max(0, peak - BESIDE), peak, LONGEST_TOKEN))),
      h("span", { class: "peak" }, h("bdi", null, token(peak, LONGEST_TOKEN))),
      h("span", { class: "after" }, h("bdi", null, range(peak + 1, Math.min(one.tokens.length, peak + 1 + BESIDE), LONGEST_TOKEN)))));
  const holder = h("div", { class: "example" }, line);
  line.addEventListener("click", () => {
    const open = holder.classList.toggle("open");
    line.setAttribute("aria-expanded", String(open));
    holder.querySelector(".whole")?.remove();
    if (open) holder.append(drawWhole(one, (i) => token(i, 400)));
  });
  return holder;
}

function drawWhole(one, token) {
  const strong = Math.abs(one.value) * LABELLED_SHARE;
  const pieces = one.tokens.map((text, i) => {
    const value = one.values?.[i];
    const labelled = value !== null && value !== undefined && value !== 0 && Math.abs(value) >= strong;
    return [token(i), labelled && h("small", null, number(value, 2)), text.includes("\n") && h("br")];
  });
  return h("div", { class: "whole", translate: "no" }, h("bdi", { dir: "auto" }, pieces),
    h("p", { class: "about" }, `example ${number(one.example)}, token ${number(one.position)}`));
}

function drawToken(one, i, scale, limit, isPeak) {
  const value = one.values?.[i], loss = one.losses?.[i];
  // A line is for reading across: deep indentation shows in full only when it is opened.
  const text = limit === LONGEST_TOKEN ? visible(one.tokens[i]).replace(/ {3,}/g, "  ") : visible(one.tokens[i]);
  const hint = [value === null || value === undefined ? "no vector here" : `activation ${number(value)}`,
    loss !== null && loss !== undefined && `next token's loss ${loss > 0 ? "+" : ""}${number(loss)} without it`];
  const lit = value ? Math.min(1, Math.abs(value) / scale) : 0;
  const kind = `${value < 0 ? "token negative" : "token"}${isPeak ? " strongest" : ""}`;
  return h("span", { class: kind, vars: lit ? { "--lit": lit.toFixed(3) } : {}, "data-hint": hint.filter(Boolean).join("\n") }, cut(text, limit));
}

/** One image: a veil over the patches where the latent is silent, its caption, its activation. */
function drawFrame(one, imageOf) {
  const address = imageOf(one.image);
  const about = one.about ?? {};
  const told = about.caption ?? ([about.facet, about.concept].filter(Boolean).join(" of ") || `example ${number(one.example)}`);
  const hint = [told, `activation ${number(one.value)}`].join("\n");
  return h("figure", { class: "frame", "data-hint": hint },
    h("div", { class: "picture" },
      address ? h("img", { src: address, alt: told, loading: "lazy", decoding: "async" }) : h("span", { class: "missing" }, told),
      one.grid && one.values && address ? drawVeil(one) : null),
    h("figcaption", null, h("span", { class: "told" }, told), h("span", { class: "value" }, fixed(one.value))));
}

/** Shows where it fires, by the image's own strongest patch; how strongly, the caption says. */
export function drawVeil(one) {
  const [rows, columns] = one.grid, strongest = Math.max(...one.values.map((value) => value ?? 0));
  if (strongest <= 0) return null;
  const canvas = h("canvas", { class: "veil", width: columns, height: rows, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const cells = context.createImageData(columns, rows);
  one.values.forEach((value, i) => {
    const lit = Math.min(1, Math.max(0, value ?? 0) / strongest);
    // Dark in both themes: on the white ground of a drawing a light veil could not be seen.
    cells.data[i * 4 + 3] = Math.round(170 * (1 - Math.sqrt(lit)));
  });
  context.putImageData(cells, 0, 0);
  return canvas;
}
