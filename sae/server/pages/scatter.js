// The map: every card a point on a canvas; wheel, drag, pinch and keys move it, a click opens a card.

import { h, number, short, visible } from "./dom.js";

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
  const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": `Map of ${number(x.length)} cards. Arrow keys move it, plus and minus zoom; the table below lists the same cards.` });
  const tip = h("div", { class: "map-tip", hidden: true });
  const button = (label, sign, act) => h("button", { type: "button", "aria-label": label, onclick: act }, sign);
  const frame = h("div", { class: "map" }, canvas, tip, h("div", { class: "zoom" },
    button("Zoom in", "+", () => zoomAt(1.6, size.w / 2, size.h / 2)), button("Zoom out", "−", () => zoomAt(1 / 1.6, size.w / 2, size.h / 2)), button("Whole map", "⤢", () => fit())));
  const size = { w: 0, h: 0 }, view = { scale: 1, dx: 0, dy: 0 };
  const box = bounds(x, y), centres = cluster ? centresOf(x, y, cluster, clusters) : [];
  let lit = null, hovered = -1, pending = 0;

  const toX = (value) => value * view.scale + view.dx, toY = (value) => size.h - (value * view.scale + view.dy);
  const later = () => { pending ||= requestAnimationFrame(paint); };

  function fit() {
    const scale = Math.min(size.w / (box.width || 1), size.h / (box.height || 1)) * 0.92;
    Object.assign(view, { scale, dx: size.w / 2 - (box.left + box.width / 2) * scale, dy: size.h / 2 - (box.low + box.height / 2) * scale });
    view.least = scale * 0.7;
    later();
  }

  function zoomAt(factor, px, py) {
    const scale = Math.min(view.least * 400, Math.max(view.least, view.scale * factor)), by = scale / view.scale;
    Object.assign(view, { scale, dx: px - (px - view.dx) * by, dy: (size.h - py) - ((size.h - py) - view.dy) * by });
    later();
  }

  function paint() {
    pending = 0;
    const dpr = devicePixelRatio || 1, context = canvas.getContext("2d"), style = getComputedStyle(frame);
    const colours = Array.from({ length: PALETTE }, (_, i) => resolve(frame, `--cluster-${i}`));
    const ink = style.color, faint = resolve(frame, "--rule");
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, size.w, size.h);
    const closeness = view.scale / (view.least || 1), side = Math.min(7, 1.6 + Math.log2(1 + closeness));
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
    for (const one of centres) label(context, one, ink, resolve(frame, "--paper"), taken);
    if (hovered >= 0) {
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.strokeRect(toX(x[hovered]) - side / 2 - 3, toY(y[hovered]) - side / 2 - 3, side + 6, side + 6);
    }
  }

  /** Write a cluster's title unless it would cover another one. */
  function label(context, one, ink, paper, taken) {
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

  installMoving(canvas, { view, size, later, zoomAt, fit, nearest, hover, open });
  new ResizeObserver(() => {
    const dpr = devicePixelRatio || 1, first = size.w === 0;
    size.w = frame.clientWidth; size.h = frame.clientHeight;
    canvas.width = size.w * dpr; canvas.height = size.h * dpr;
    if (first) fit(); else later();
  }).observe(frame);
  addEventListener("themechange", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  return { element: frame, highlight: (set) => { lit = set; later(); }, placeOf: (index) => [toX(x[index]), toY(y[index])] };
}

function installMoving(canvas, { view, size, later, zoomAt, fit, nearest, hover, open }) {
  const pointers = new Map();
  let moved = 0, spread = 0;
  const gap = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY); }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    moved = 0;
    spread = pointers.size === 2 ? gap() : 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const held = pointers.get(event.pointerId);
    if (!held) return hover(nearest(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
    const across = event.offsetX - held.x, down = event.offsetY - held.y;
    moved += Math.abs(across) + Math.abs(down);
    Object.assign(held, { x: event.offsetX, y: event.offsetY });
    if (pointers.size === 2) {
      const now = gap(), [a, b] = [...pointers.values()];
      if (spread) zoomAt(now / spread, (a.x + b.x) / 2, (a.y + b.y) / 2);
      spread = now;
    } else if (moved > 3) { view.dx += across; view.dy -= down; hover(-1); later(); }
  });
  canvas.addEventListener("pointerup", (event) => {
    const alone = pointers.size === 1;
    pointers.delete(event.pointerId);
    const index = alone && moved <= 3 ? nearest(event.offsetX, event.offsetY) : -1;
    if (index >= 0) open(index);
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("keydown", (event) => {
    const step = 40, moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) { view.dx += moves[event.key][0]; view.dy += moves[event.key][1]; later(); }
    else if (event.key === "+" || event.key === "=") zoomAt(1.4, size.w / 2, size.h / 2);
    else if (event.key === "-") zoomAt(1 / 1.4, size.w / 2, size.h / 2);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function resolve(frame, name) {
  const probe = h("span", { vars: { color: `var(${name})` }, hidden: true });
  frame.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
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
