// The map of all cards: every card a point, a click opens it.

import { h, number, short, visible } from "./dom.js";
import { drawMap } from "./moving.js";

const REACH = 12;
const PALETTE = 8;
const LEGIBLE = 8;

/**
 * Draw the map.
 *
 * x, y: coordinates (nan: not on the map); cluster: numbers or null; clusters: [{id, title, n}];
 * nameOf(index) -> promise of a title; open(index). Returns {element, highlight(set or null)}.
 */
export function drawScatter({ x, y, cluster, clusters, nameOf, open }) {
  const tip = h("div", { class: "map-tip", hidden: true });
  const label = `Map of ${number(x.length)} cards. Arrow keys move it, plus and minus zoom; the table below lists the same cards.`;
  const map = drawMap({ box: bounds(x, y), label, paint, nearest, hover, open });
  const { element, canvas, size, toX, toY, later } = map;
  const centres = cluster ? centresOf(x, y, cluster, clusters) : [];
  let lit = null, hovered = -1;
  canvas.after(tip);

  function paint(context) {
    const style = getComputedStyle(element), ink = style.color, faint = map.colour("--rule");
    const colours = Array.from({ length: PALETTE }, (_, i) => map.colour(`--cluster-${i}`));
    const side = Math.min(7, 1.6 + Math.log2(1 + map.closeness()));
    const order = lit ? [false, true] : [true];
    for (const bright of order) {
      let last = "";
      for (let i = 0; i < x.length; i++) {
        if (lit && lit.has(i) !== bright) continue;
        const px = toX(x[i]), py = toY(y[i]);
        if (!(px > -8 && py > -8 && px < size.w + 8 && py < size.h + 8)) continue;
        const colour = lit && !bright ? faint : cluster && cluster[i] >= 0 ? colours[cluster[i] % PALETTE] : colours[0];
        if (colour !== last) context.fillStyle = last = colour;
        context.fillRect(px - side / 2, py - side / 2, side, side);
      }
    }
    context.font = `12.5px ${style.fontFamily}`;
    context.textAlign = "center";
    const taken = [];
    for (const one of centres) write(context, one, ink, map.colour("--paper"), taken);
    if (hovered >= 0) {
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.strokeRect(toX(x[hovered]) - side / 2 - 3, toY(y[hovered]) - side / 2 - 3, side + 6, side + 6);
    }
  }

  /** Write a cluster's title unless it would cover another one. */
  function write(context, one, ink, paper, taken) {
    const text = short(visible(one.title), 28), half = context.measureText(text).width / 2 + LEGIBLE;
    const px = toX(one.x), py = toY(one.y);
    if (px < half || px > size.w - half || py < 12 || py > size.h - 4) return;
    if (taken.some((other) => Math.abs(other.px - px) < other.half + half && Math.abs(other.py - py) < 17)) return;
    taken.push({ px, py, half });
    context.strokeStyle = paper;
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeText(text, px, py);
    context.fillStyle = ink;
    context.fillText(text, px, py);
  }

  function nearest(px, py) {
    let best = -1, least = REACH * REACH;
    for (let i = 0; i < x.length; i++) {
      const across = toX(x[i]) - px, down = toY(y[i]) - py, far = across * across + down * down;
      if (far < least) { least = far; best = i; }
    }
    return best;
  }

  function hover(index, px, py) {
    if (index === hovered) return;
    hovered = index;
    canvas.classList.toggle("over", index >= 0);
    tip.hidden = index < 0;
    later();
    if (index < 0) return;
    tip.textContent = number(index);
    tip.style.setProperty("left", `${Math.min(px + 14, size.w - 190)}px`);
    tip.style.setProperty("top", `${Math.min(py + 14, size.h - 44)}px`);
    nameOf(index).then((title) => { if (hovered === index) tip.textContent = `${number(index)}  ${short(visible(title ?? ""), 80)}`; });
  }

  return { element, highlight: (set) => { lit = set; later(); }, placeOf: (index) => [toX(x[index]), toY(y[index])] };
}

function bounds(x, y) {
  let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
  for (let i = 0; i < x.length; i++) {
    if (Number.isNaN(x[i]) || Number.isNaN(y[i])) continue;
    left = Math.min(left, x[i]); right = Math.max(right, x[i]); low = Math.min(low, y[i]); high = Math.max(high, y[i]);
  }
  return left <= right ? { left, low, width: right - left, height: high - low } : { left: 0, low: 0, width: 1, height: 1 };
}

/** Put a cluster's title at the mean of its points; the largest are written first. */
function centresOf(x, y, cluster, clusters) {
  const sums = new Map(clusters.map((one) => [one.id, { x: 0, y: 0, n: 0 }]));
  for (let i = 0; i < x.length; i++) {
    const sum = sums.get(cluster[i]);
    if (sum && !Number.isNaN(x[i])) { sum.x += x[i]; sum.y += y[i]; sum.n += 1; }
  }
  return clusters.map((one) => ({ ...one, sum: sums.get(one.id) })).filter((one) => one.sum.n)
    .map((one) => ({ title: one.title, n: one.sum.n, x: one.sum.x / one.sum.n, y: one.sum.y / one.sum.n })).sort((a, b) => b.n - a.n);
}
