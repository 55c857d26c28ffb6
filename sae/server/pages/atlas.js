// An atlas as a map of its cells: the pictures of one way or another, and what is told of the cell looked at.

import { barList } from "./charts.js";
import { h, number, plural, share, visible } from "./dom.js";
import { drawMap } from "./moving.js";
import { nameUnits, unitLink } from "./units.js";

const SIDE = "cells along a side";
const WAY = /^atlas-([a-z]+)$/;
const THUMB = 112;

/** The ways in which a finding's atlas can be shown, the one that was asked for first; none if it is no atlas. */
export function waysOf(found) {
  if (found.method !== "atlas" || !(found.figures?.[SIDE] > 0)) return [];
  const ways = found.images.map((file) => WAY.exec(file)?.[1]).filter(Boolean);
  return ways.sort((a, b) => (b === found.settings?.picture) - (a === found.settings?.picture));
}

export function drawAtlas({ source, about, found }) {
  const n = found.figures[SIDE], cells = found.rows, ways = waysOf(found);
  const at = new Map(cells.map(({ x, y }, i) => [`${x} ${y}`, i]));
  const state = { way: ways[0], hovered: -1, chosen: cells.reduce((best, cell, i) => (cell.n > cells[best].n ? i : best), 0) };
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const mosaics = new Map(ways.map((way) => [way, load(source.labImage(found.name, `atlas-${way}`))]));
  const map = drawMap({
    box: { left: 0, low: 0, width: n, height: n }, paint, hover, open: choose, arrow, role: "application",
    label: `Map of ${plural(cells.length, "cell")}. Arrow keys go from cell to cell, plus and minus zoom, 0 shows all; beside it stands what the cell holds.`,
    nearest: (px, py) => at.get(`${Math.floor((px - map.toX(0)) / map.unit())} ${Math.floor((map.toY(0) - py) / map.unit())}`) ?? -1,
  });
  const panel = h("div", { class: "cell", role: "status" });

  function load(address) {
    const image = new Image();
    image.addEventListener("load", () => { map.later(); tell(); });
    image.addEventListener("error", () => { problem.textContent = `${address} cannot be shown.`; problem.hidden = false; });
    image.src = address;
    return image;
  }

  /** Draw a cell's picture; nothing until it is here. */
  function cutOut(context, way, { x, y }, ...place) {
    const image = mosaics.get(way), width = image.naturalWidth / n, height = image.naturalHeight / n;
    if (width) context.drawImage(image, x * width, (n - 1 - y) * height, width, height, ...place);
  }

  function paint(context) {
    const unit = map.unit(), gap = Math.min(1, unit / 24);
    context.imageSmoothingQuality = "high";
    for (const cell of cells) {
      const px = map.toX(cell.x), py = map.toY(cell.y + 1);
      if (px > -unit && py > -unit && px < map.size.w && py < map.size.h) cutOut(context, state.way, cell, px, py, unit - gap, unit - gap);
    }
    const ring = (index, colour, width) => {
      if (index < 0) return;
      const { x, y } = cells[index];
      context.strokeStyle = map.colour(colour);
      context.lineWidth = width;
      context.strokeRect(map.toX(x) - width / 2, map.toY(y + 1) - width / 2, unit + width - gap, unit + width - gap);
    };
    ring(state.hovered, "--ink", 1.5);
    ring(state.chosen, "--bar", 3);
  }

  function hover(index) {
    if (index === state.hovered) return;
    state.hovered = index;
    map.canvas.classList.toggle("over", index >= 0);
    map.later();
    tell();
  }

  function choose(index) {
    Object.assign(state, { chosen: index, hovered: -1 });
    map.later();
    tell();
  }

  /** Go to the next cell that way, also where there is a gap between. */
  function arrow(across, down) {
    const from = cells[state.chosen];
    let best = -1, least = Infinity;
    cells.forEach(({ x, y }, i) => {
      const along = (x - from.x) * across - (y - from.y) * down, aside = Math.abs((x - from.x) * down) + Math.abs((y - from.y) * across);
      const far = along + 2 * aside;
      if (along > 0 && aside <= along && far < least) { best = i; least = far; }
    });
    if (best < 0) return;
    choose(best);
    map.show(cells[best].x + 0.5, cells[best].y + 0.5, Math.min(map.unit(), map.size.w / 2, map.size.h / 2));
  }

  function tell() {
    const cell = cells[state.hovered >= 0 ? state.hovered : state.chosen];
    panel.replaceChildren(...drawCell({ cell, ways, counts: about.counts, thumb: (way) => {
      const canvas = h("canvas", { width: 2 * THUMB, height: 2 * THUMB, "aria-hidden": "true" });
      cutOut(canvas.getContext("2d"), way, cell, 0, 0, 2 * THUMB, 2 * THUMB);
      return canvas;
    } }));
    // Titles are asked for only where somebody stays.
    if (state.hovered < 0) nameUnits(source, panel);
  }

  const ways_of = h("p", { class: "note orders" }, h("span", null, "pictures:"), ways.map((way) => h("button", { type: "button", class: "link", "data-way": way, "aria-pressed": String(way === state.way), onclick: (event) => {
    state.way = way;
    for (const one of event.currentTarget.parentNode.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === event.currentTarget));
    map.later();
  } }, visible(way))));
  tell();
  return h("section", { class: "part atlas" }, ways.length > 1 ? ways_of : null, problem, h("div", { class: "atlas-map" }, map.element, panel));
}

/** What is told of a cell: its place and size, its pictures, its strongest latents, and its commonest labels. */
function drawCell({ cell, ways, counts, thumb }) {
  const latents = String(cell.latents).split(" ").filter(Boolean).map(Number), names = String(cell.names).split("; ");
  const families = Object.keys(cell).filter((name) => `${name}_share` in cell && cell[name] !== "");
  const called = (i) => h("bdi", null, names.length === latents.length && names[i] ? visible(names[i]) : "tells no label apart");
  const named = (index, i) => h("li", null, index < (counts.latents ?? 0) ? unitLink({ kind: "latent", index }, [h("span", { class: "index" }, index), " ", called(i)]) : [h("span", { class: "index" }, index), " ", called(i)]);
  return [
    h("h2", null, plural(cell.n, "picture"), h("span", { class: "note" }, `cell ${cell.x}, ${cell.y}`)),
    h("div", { class: "thumbs-of" }, ways.map((way) => h("figure", null, thumb(way), h("figcaption", { class: "note" }, visible(way))))),
    h("h3", null, "Strongest latents"), h("ol", { class: "latents-of" }, latents.map(named)),
    h("h3", null, "Commonest labels"), barList(families.map((name) => ({ name: `${visible(name).replaceAll("_", " ")}: ${visible(String(cell[name]))}`, value: cell[`${name}_share`] })), { most: 1, format: share }),
    "visualised_cell" in cell ? h("p", { class: "note" }, cell.visualised_cell === `${cell.x} ${cell.y}` ? "What the model makes of the visualised picture is nearest to this cell's mean" : `What the model makes of the visualised picture is nearer to the mean of cell ${visible(cell.visualised_cell).replace(" ", ", ")}`, ` (cosine to this one ${number(cell.visualised_cosine)}).`) : null,
  ].filter(Boolean);
}
