// A plane seen through a canvas: wheel, drag, pinch and keys move it.

import { h } from "./dom.js";

const SPARE = 0.92;
const FARTHEST = 0.7, CLOSEST = 400;

/**
 * Make a map.
 *
 * box: all that there is to see, {left, low, width, height}, y upwards; label: what the canvas says it is;
 * paint(context): draws; nearest(px, py) -> number of what is there, or -1; hover(number, px, py); open(number);
 * arrow(across, down): what an arrow key does, else the map moves.
 * Returns {element, canvas, size, toX, toY, unit(), closeness(), later(), show(x, y), colour(name)}.
 */
export function drawMap({ box, label, paint, nearest, hover, open, arrow = null, role = "img" }) {
  const canvas = h("canvas", { tabindex: 0, role, "aria-label": label });
  const size = { w: 0, h: 0 }, view = { scale: 1, dx: 0, dy: 0, least: 1 };
  let pending = 0;
  const button = (told, sign, act) => h("button", { type: "button", "aria-label": told, onclick: act }, sign);
  const element = h("div", { class: "map" }, canvas, h("div", { class: "zoom" },
    button("Zoom in", "+", () => zoomAt(1.6, size.w / 2, size.h / 2)), button("Zoom out", "−", () => zoomAt(1 / 1.6, size.w / 2, size.h / 2)), button("Whole map", "⤢", fit)));

  const toX = (value) => value * view.scale + view.dx, toY = (value) => size.h - (value * view.scale + view.dy);
  const later = () => { pending ||= requestAnimationFrame(draw); };

  function draw() {
    pending = 0;
    const dpr = devicePixelRatio || 1, context = canvas.getContext("2d");
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, size.w, size.h);
    paint(context);
  }

  function fit() {
    const scale = Math.min(size.w / (box.width || 1), size.h / (box.height || 1)) * SPARE;
    Object.assign(view, { scale, dx: size.w / 2 - (box.left + box.width / 2) * scale, dy: size.h / 2 - (box.low + box.height / 2) * scale });
    view.least = scale * FARTHEST;
    later();
  }

  function zoomAt(factor, px, py) {
    const scale = Math.min(view.least * CLOSEST, Math.max(view.least, view.scale * factor)), by = scale / view.scale;
    Object.assign(view, { scale, dx: px - (px - view.dx) * by, dy: (size.h - py) - ((size.h - py) - view.dy) * by });
    later();
  }

  function move(across, down) {
    view.dx += across;
    view.dy -= down;
    later();
  }

  /** Move no further than it takes to have a place, and a margin around it, in sight. */
  function show(x, y, margin) {
    const px = toX(x), py = toY(y);
    move(Math.max(0, margin - px) - Math.max(0, px - size.w + margin), Math.max(0, margin - py) - Math.max(0, py - size.h + margin));
  }

  installPointers(canvas, { zoomAt, move, nearest, hover, open });
  installKeys(canvas, { zoomIn: (factor) => zoomAt(factor, size.w / 2, size.h / 2), fit, arrow: arrow ?? ((across, down) => move(-40 * across, -40 * down)) });
  new ResizeObserver(() => {
    const dpr = devicePixelRatio || 1, first = size.w === 0;
    size.w = element.clientWidth; size.h = element.clientHeight;
    canvas.width = size.w * dpr; canvas.height = size.h * dpr;
    if (first) fit(); else later();
  }).observe(element);
  addEventListener("themechange", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  return { element, canvas, size, toX, toY, later, show, unit: () => view.scale, closeness: () => view.scale / view.least, colour: (name) => resolve(element, name) };
}

function installPointers(canvas, { zoomAt, move, nearest, hover, open }) {
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
    } else if (moved > 3) { hover(-1); move(across, down); }
  });
  canvas.addEventListener("pointerup", (event) => {
    const alone = pointers.size === 1;
    pointers.delete(event.pointerId);
    const index = alone && moved <= 3 ? nearest(event.offsetX, event.offsetY) : -1;
    if (index >= 0) open(index);
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => hover(-1));
}

function installKeys(canvas, { zoomIn, fit, arrow }) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (arrows[event.key]) arrow(...arrows[event.key]);
    else if (event.key === "+" || event.key === "=") zoomIn(1.4);
    else if (event.key === "-") zoomIn(1 / 1.4);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function resolve(element, name) {
  const probe = h("span", { vars: { color: `var(${name})` }, hidden: true });
  element.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
