// Small charts as SVG: histograms, bars, and values beside the interval of their control.

import { fixed, h, number, svg } from "./dom.js";

/**
 * A histogram as small multiple: bars, first and last edge, hints with exact counts.
 * Heights are counts, or their logarithm where one bin would flatten all others.
 */
export function histogram({ edges, counts }, { label, name = number, logCounts = false, logEdges = false, mark = null }) {
  const width = 240, height = 72, base = height - 0.5;
  const tall = logCounts ? counts.map((n) => (n > 0 ? Math.log10(n) + 0.35 : 0)) : counts;
  const top = Math.max(...tall, 1e-9);
  const scale = logEdges && edges[0] > 0 ? Math.log : (x) => x;
  const first = scale(edges[0]), extent = scale(edges[edges.length - 1]) - first || 1;
  const at = (x) => ((scale(x) - first) / extent) * width;
  const bars = counts.map((n, i) => {
    const x = at(edges[i]), w = at(edges[i + 1]) - x, tallness = (tall[i] / top) * (height - 4);
    const hint = `${name(edges[i])} to ${name(edges[i + 1])}: ${number(n)}`;
    return [
      svg("rect", { class: "bar", x: x + 0.4, y: base - tallness, width: Math.max(w - 0.8, 0.6), height: tallness }),
      svg("rect", { class: "hit", x, y: 0, width: Math.max(w, 0.6), height, "data-hint": hint }),
    ];
  });
  const marked = mark !== null && at(mark) >= 0 && at(mark) <= width
    ? svg("line", { class: "mark", x1: at(mark), x2: at(mark), y1: 0, y2: height }) : null;
  return h("figure", { class: "chart" },
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}: histogram of ${number(sum(counts))}, from ${name(edges[0])} to ${name(edges[edges.length - 1])}` },
      bars, svg("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }), marked),
    h("div", { class: "ends", "aria-hidden": "true" }, h("span", null, name(edges[0])), h("span", null, name(edges[edges.length - 1]))),
    h("figcaption", null, label));
}

function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}

/** A list of names with bars: [{name, value, link?, hint?}]; bars start from zero, left or right by sign. */
export function barList(rows, { most = null, tone = "", format = fixed } = {}) {
  const top = most ?? Math.max(...rows.map((row) => Math.abs(row.value)), 1e-12);
  return h("ol", { class: `bars ${tone}` }, rows.map((row) => h("li", null,
    h("span", { class: "name", title: row.hint ?? null }, row.link ? h("a", { href: row.link }, row.name) : row.name),
    h("span", { class: "length", "aria-hidden": "true" },
      h("span", { class: row.value < 0 ? "fill negative" : "fill", vars: { "--share": Math.min(1, Math.abs(row.value) / top) } })),
    h("span", { class: "value" }, format(row.value)))));
}

/** A value on a line from low to high, with its control as a tick, `others` as short ones, and an interval as a band. */
export function strip({ value, control = null, others = [], band = null, low = 0, high = 1, label }) {
  const width = 160, height = 18, middle = height / 2;
  const at = (x) => 4 + ((Math.min(high, Math.max(low, x)) - low) / (high - low || 1)) * (width - 8);
  const told = [`${label}: ${number(value)}`, control === null ? null : `control ${number(control)}`, band ? `interval ${number(band[0])} to ${number(band[1])}` : null];
  return svg("svg", { class: "strip", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told.filter(Boolean).join(", "), "data-hint": told.filter(Boolean).join(" · ") },
    svg("line", { class: "axis", x1: 4, x2: width - 4, y1: middle, y2: middle }),
    band && svg("rect", { class: "band", x: at(band[0]), width: Math.max(1.5, at(band[1]) - at(band[0])), y: middle - 5, height: 10 }),
    others.map((one) => svg("line", { class: "control", x1: at(one), x2: at(one), y1: middle - 3, y2: middle + 3 })),
    control !== null && svg("line", { class: "control", x1: at(control), x2: at(control), y1: middle - 6, y2: middle + 6 }),
    svg("circle", { class: "dot", cx: at(value), cy: middle, r: 4 }));
}

/** Precision at each level of activation, as columns of equal width. */
export function levelColumns(levels, label) {
  const width = 60, height = 18, each = width / levels.length;
  const told = levels.map(([low, high, value]) => `${number(low)}–${number(high)}: ${number(value)}`).join("\n");
  return svg("svg", { class: "levels", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}: precision by level of activation, ${told}`, "data-hint": `precision by level\n${told}` },
    levels.map(([, , value], i) => svg("rect", { class: "bar", x: i * each + 0.5, width: each - 1, y: height - 1 - (value ?? 0) * (height - 2), height: (value ?? 0) * (height - 2) + 0.5 })),
    svg("line", { class: "axis", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
}
