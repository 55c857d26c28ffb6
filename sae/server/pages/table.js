// A table of all cards: sorts and filters typed arrays, and draws only the rows that can be seen.

import { fixed, h, number, plural, share, short, visible } from "./dom.js";

const ROW = 34;
const SPARE = 8;
const HIDDEN = new Set(["map_x", "map_y", "cluster"]);
const FIRST = ["rate", "max", "mean", "label_auc"];
const LAST = ["n_fired"];
const NAMES = { rate: "fires on", n_fired: "firings", label_auc: "label AUC", max: "strongest", mean: "mean when on" };

/**
 * Draw the table.
 *
 * columns: Float32Array by name; count: number of cards; titles(indices) and matching(text): promises;
 * link(index) -> address; onFilter(set of indices, or null for all).
 */
export function drawTable({ columns, count, titles, matching, link, onFilter }) {
  const rest = Object.keys(columns).filter((name) => ![...HIDDEN, ...FIRST, ...LAST].includes(name))
    .sort((a, b) => filled(columns[b]) - filled(columns[a]) || (a < b ? -1 : 1));
  const names = [...FIRST.filter((name) => name in columns), ...rest, ...LAST.filter((name) => name in columns)];
  const state = { sort: names.includes("rate") ? "rate" : null, down: true, ranges: new Map(), found: null, order: new Uint32Array(0) };
  const known = new Map(), live = new Map();
  const heads = new Map();
  const template = `4.6em minmax(12em, 2fr) ${names.map(() => "minmax(6.8em, 1fr)").join(" ")}`;
  const rows = h("div", { class: "rows", role: "rowgroup" });
  const told = h("p", { class: "note", "aria-live": "polite" });

  const head = (name, label) => {
    const button = h("button", { type: "button", onclick: () => sortBy(name) }, label);
    const cell = h("div", { role: "columnheader", class: name ? "number" : null, "aria-sort": "none" }, button);
    heads.set(name, cell);
    return cell;
  };
  const filters = names.map((name) => h("div", { class: "number" }, h("input", { "aria-label": `filter ${name}`, placeholder: "> <", autocomplete: "off", spellcheck: "false",
    title: "0.1 or >0.1: at least; <0.5: at most; 0.1..0.5: between", oninput: (event) => { setRange(name, event.target); } })));
  let typing = 0;
  const words = h("input", { type: "search", placeholder: "filter by words", "aria-label": "filter by words", autocomplete: "off", spellcheck: "false", oninput: () => { clearTimeout(typing); typing = setTimeout(findWords, 180); } });
  const top = h("div", { class: "heads", role: "rowgroup" },
    h("div", { class: "row", role: "row" }, head(null, "number"), h("div", { role: "columnheader" }, "title"), names.map((name) => head(name, NAMES[name] ?? name.replace("score.", "").replaceAll("_", " ")))),
    h("div", { class: "row filters", role: "row" }, h("div"), h("div", null, words), filters));
  const viewport = h("div", { class: "viewport", tabindex: 0, role: "table", "aria-label": "cards", "aria-rowcount": count }, h("div", { class: "wide", vars: { "--columns": template, "--least": `${22 + names.length * 7}em` } }, top, rows));
  viewport.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });

  async function findWords() {
    const text = words.value.trim();
    const hits = text ? await matching(text) : null;
    if (text !== words.value.trim()) return;
    state.found = hits && new Set(hits);
    arrange();
  }

  function setRange(name, input) {
    const range = readRange(input.value);
    input.setAttribute("aria-invalid", String(range === undefined));
    if (range) state.ranges.set(name, range); else state.ranges.delete(name);
    arrange();
  }

  function sortBy(name) {
    state.down = state.sort === name ? !state.down : name !== null;
    state.sort = name;
    arrange();
  }

  function arrange() {
    state.order = sorted(columns, count, state);
    const filtered = state.found !== null || state.ranges.size > 0;
    for (const [name, cell] of heads) cell.setAttribute("aria-sort", state.sort === name ? (state.down ? "descending" : "ascending") : "none");
    told.textContent = filtered ? `${number(state.order.length)} of ${plural(count, "card")}` : plural(count, "card");
    live.clear();
    rows.replaceChildren();
    rows.style.setProperty("height", `${state.order.length * ROW}px`);
    viewport.scrollTop = 0;
    onFilter(filtered ? new Set(state.order) : null);
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(viewport.scrollTop / ROW) - SPARE);
    const last = Math.min(state.order.length, first + Math.ceil((viewport.clientHeight || 480) / ROW) + 2 * SPARE);
    const shown = Array.from(state.order.subarray(first, last));
    for (const [place, row] of live) if (place < first || place >= last) { row.remove(); live.delete(place); }
    shown.forEach((index, i) => {
      if (live.has(first + i)) return;
      live.set(first + i, drawRow(index, first + i));
      rows.append(live.get(first + i));
    });
    const missing = shown.filter((index) => !known.has(index));
    if (!missing.length) return;
    for (const index of missing) known.set(index, "");
    titles(missing).then((found) => {
      for (const [index, title] of Object.entries(found)) known.set(Number(index), title);
      for (const cell of rows.querySelectorAll("[data-index]")) cell.textContent = short(visible(known.get(Number(cell.dataset.index)) || " "), 120);
    }, () => missing.forEach((index) => known.delete(index)));
  }

  function drawRow(index, place) {
    const title = known.get(index);
    return h("div", { class: "row", role: "row", "aria-rowindex": place + 1, vars: { transform: `translateY(${place * ROW}px)` } },
      h("span", { role: "cell", class: "index" }, number(index)),
      h("span", { role: "cell", class: "title" }, h("a", { href: link(index), tabindex: -1, "data-index": index }, title ? short(visible(title), 120) : " ")),
      names.map((name) => h("span", { role: "cell", class: "number" }, name === "rate" ? share(columns[name][index]) : fixed(columns[name][index]))));
  }

  installKeys(viewport, rows, draw);
  queueMicrotask(arrange);
  return h("div", { class: "table" }, told, viewport);
}

/** Up and down move through rows, Enter opens. */
function installKeys(viewport, rows, draw) {
  viewport.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const now = Number(document.activeElement?.closest?.("[aria-rowindex]")?.getAttribute("aria-rowindex") ?? 0);
    const next = Math.max(1, now + (event.key === "ArrowDown" ? 1 : -1)), place = (next - 1) * ROW;
    if (place < viewport.scrollTop) viewport.scrollTop = place;
    else if (place > viewport.scrollTop + viewport.clientHeight - 4 * ROW) viewport.scrollTop = place - viewport.clientHeight + 4 * ROW;
    draw();
    rows.querySelector(`[aria-rowindex="${next}"] a`)?.focus({ preventScroll: true });
  });
}

/** The share of cards that have a number in a column. */
export function filled(values) {
  return values.reduce((count, value) => count + !Number.isNaN(value), 0) / (values.length || 1);
}

/** Read ">0.1", "<2", "0.1..0.5" or "0.1"; null where there is nothing, undefined where it is none of these. */
export function readRange(text) {
  const words = text.replace(/[\s%=]/g, "");
  if (!words) return null;
  const match = /^(?:(<)|(>))?(-?\d*\.?\d+(?:e-?\d+)?)(?:\.\.(-?\d*\.?\d+(?:e-?\d+)?))?$/i.exec(words);
  const share_of = text.includes("%") ? 0.01 : 1;
  if (!match || Number.isNaN(Number(match[3]))) return undefined;
  const value = Number(match[3]) * share_of;
  if (match[1]) return [-Infinity, value];
  return [value, match[4] === undefined ? Infinity : Number(match[4]) * share_of];
}

/** The numbers of the cards that pass, in order; cards without a number come last whichever way it sorts. */
export function sorted(columns, count, { sort, down, ranges, found }) {
  const tests = [...ranges].map(([name, [low, high]]) => [columns[name], low, high]);
  const kept = new Uint32Array(count);
  let size = 0;
  for (let i = 0; i < count; i++) {
    if (found && !found.has(i)) continue;
    if (tests.every(([values, low, high]) => values[i] >= low && values[i] <= high)) kept[size++] = i;
  }
  const order = kept.subarray(0, size);
  if (sort === null) return down ? order.reverse() : order;
  const values = columns[sort], turn = down ? -1 : 1;
  const key = (i) => (Number.isNaN(values[i]) ? Infinity : turn * values[i]);
  return order.sort((a, b) => { const left = key(a), right = key(b); return left < right ? -1 : left > right ? 1 : a - b; });
}
