// The rows of a finding as a table that sorts and filters; as many are drawn as are looked at.

import { h, number, plural } from "./dom.js";
import { readRange } from "./table.js";
import { drawValue, nameUnits } from "./units.js";

const FIRST = 40;
const MORE = 400;

/** Draw rows, all of whose columns are shown in the order in which they come. */
export function drawRows(rows, { source, counts }) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const numeric = new Set(columns.filter((name) => rows.some((row) => typeof row[name] === "number") && rows.every((row) => typeof row[name] === "number" || empty(row[name]))));
  const state = { sort: null, down: true, tests: new Map(), order: rows, shown: FIRST };
  const heads = new Map(), body = h("tbody"), told = h("p", { class: "note", "aria-live": "polite" });
  const more = h("button", { class: "more", type: "button", onclick: () => { state.shown += MORE; draw(); } });

  function arrange() {
    const tests = [...state.tests.values()];
    state.order = rows.filter((row) => tests.every((test) => test(row)));
    if (state.sort !== null) state.order = state.order.map((row, i) => [row, i]).sort(([a, i], [b, j]) => compared(a[state.sort], b[state.sort], state.down) || i - j).map(([row]) => row);
    for (const [name, cell] of heads) cell.setAttribute("aria-sort", state.sort === name ? (state.down ? "descending" : "ascending") : "none");
    told.textContent = state.tests.size ? `${number(state.order.length)} of ${plural(rows.length, "row")}` : plural(rows.length, "row");
    state.shown = FIRST;
    body.replaceChildren();
    draw();
  }

  function draw() {
    body.append(...state.order.slice(body.childElementCount, state.shown).map((row) => h("tr", null, columns.map((name) => h("td", { class: numeric.has(name) ? "number" : null }, drawValue(name, row[name], counts))))));
    const left = state.order.length - body.childElementCount;
    more.hidden = left <= 0;
    more.textContent = `${number(Math.min(left, MORE))} more`;
    nameUnits(source, body);
  }

  function sortBy(name) {
    state.down = state.sort === name ? !state.down : numeric.has(name);
    state.sort = name;
    arrange();
  }

  function filter(name, input) {
    const test = tester(name, input.value, numeric.has(name));
    input.setAttribute("aria-invalid", String(test === undefined));
    if (test) state.tests.set(name, test); else state.tests.delete(name);
    arrange();
  }

  const head = (name) => {
    const cell = h("th", { scope: "col", class: numeric.has(name) ? "number" : null, "aria-sort": "none" }, h("button", { type: "button", onclick: () => sortBy(name) }, name.replaceAll("_", " ")));
    heads.set(name, cell);
    return cell;
  };
  const field = (name) => h("td", { class: numeric.has(name) ? "number" : null }, h("input", { "aria-label": `filter ${name}`, placeholder: numeric.has(name) ? "> <" : "has", autocomplete: "off", spellcheck: "false",
    title: numeric.has(name) ? "0.1 or >0.1: at least; <0.5: at most; 0.1..0.5: between" : "rows whose value holds this", oninput: (event) => filter(name, event.target) }));
  const table = h("table", { class: "found-rows" }, h("thead", null, h("tr", null, columns.map(head)), rows.length > 1 ? h("tr", { class: "filters" }, columns.map(field)) : null), body);
  arrange();
  return h("div", null, told, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "rows" }, table), more);
}

function empty(value) {
  return value === null || value === undefined || value === "";
}

/** What a row has to pass: a range of numbers, or part of a text; null for everything, undefined for what is no range. */
function tester(name, text, isNumber) {
  if (!text.trim()) return null;
  if (!isNumber) return (row) => !empty(row[name]) && String(row[name]).toLowerCase().includes(text.trim().toLowerCase());
  const range = readRange(text);
  return range && ((row) => !empty(row[name]) && row[name] >= range[0] && row[name] <= range[1]);
}

/** Order of two values; those without one come last whichever way it sorts. */
function compared(a, b, down) {
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  const way = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -way : way;
}
