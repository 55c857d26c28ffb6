// The first page: what the dictionary is, how it scores beside its controls, its map, and a table of its cards.

import { histogram, strip } from "./charts.js";
import { fixed, h, number, share, short, visible } from "./dom.js";
import { drawScatter } from "./scatter.js";
import { drawTable, filled } from "./table.js";

const FIRST_SCORES = 10;
const DISTRIBUTIONS = 6;
const BINS = 40;
const ENOUGH = 0.2;

export async function drawOverview({ source, about, kind }) {
  const [overview, columns] = await Promise.all([source.overview(), source.columns(kind)]);
  const count = about.counts[`${kind}s`] ?? 0;
  const shelf = h("section", { class: "wide-part", id: "cards" });
  const page = h("div", { class: "overview" },
    drawTitle(about),
    drawFacts(about, overview),
    overview.report ? drawReport(overview.report, overview.controls ?? {}) : null,
    overview.log_rates ? h("section", { class: "part two" },
      h("div", null, h("h2", null, "How often its latents fire"), h("p", { class: "note" }, "Latents by firing rate. A hump far to the left is latents that hardly ever fire; one at the right, latents that fire on nearly everything.")),
      histogram(overview.log_rates, { label: "firing rate, log scale", name: (x) => share(10 ** x) })) : null,
    shelf);
  fillShelf(shelf, { source, about, kind, count, columns, overview });
  return page;
}

function drawTitle(about) {
  return h("header", null, h("p", { class: "kicker" }, h("span", null, about.complete ? "catalog" : "catalog, not finished")),
    h("h1", { translate: "no" }, visible(about.subject)), h("p", { class: "lead", translate: "no" }, visible(about.hookpoint)));
}

function drawFacts(about, overview) {
  const counts = Object.entries(about.counts).filter(([, n]) => n).map(([name, n]) => [name, number(n)]);
  const own = [...counts, ["vectors", number(about.n_vectors)], [about.modality === "image" ? "images" : "texts", number(about.n_examples)]];
  const given = overview.facts ?? [];
  const facts = [...own.filter(([name]) => !given.some(([other]) => other === name)), ...given];
  return h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", null, h("dt", null, visible(String(name))), h("dd", null, visible(String(value))))));
}

/** Scores as dots, each on its own scale, beside the strongest control; rows: [{name, value, low, high, better, control...}]. */
function drawReport(rows, controls) {
  if (!rows.length) return null;
  // What was compared with a control comes first, then what has one to compare with.
  const rank = (row) => (row.verdict ? 2 : row.control === undefined ? 0 : 1);
  const ranked = [...rows].sort((a, b) => rank(b) - rank(a));
  const draw = (row) => drawScore(row, Object.entries(controls).map(([name, one]) => [name, one.scores[row.name]]).filter(([, value]) => value !== undefined && value !== null));
  const body = h("tbody", null, ranked.slice(0, FIRST_SCORES).map(draw));
  const rest = ranked.slice(FIRST_SCORES);
  const more = rest.length ? h("button", { class: "more", type: "button", onclick: () => { body.append(...rest.map(draw)); more.remove(); } }, `${rest.length} more`) : null;
  return h("section", { class: "part report" }, h("h2", null, "Scores beside controls"),
    h("p", { class: "note" }, "Dot: the dictionary, with its 95 % interval as a band. Ticks: the controls, the strongest one long."),
    h("div", { class: "scroll" }, h("table", null, h("thead", null, h("tr", null, ["score", "", "value", "strongest control", ""].map((name, i) => h("th", { scope: "col", class: i === 2 ? "number" : null }, name)))), body)), more);
}

function drawScore(row, rivals) {
  const band = row.low === undefined || row.low === null ? null : [row.low, row.high];
  const all = [row.value, ...(band ?? []), ...rivals.map(([, value]) => value)].filter((one) => one !== null);
  const low = Math.min(0, ...all), high = Math.max(...all, low + 1e-9);
  const top = high <= 1 && high > 0.3 ? 1 : high + (high - low) * 0.05;
  const hint = rivals.map(([name, value]) => `${visible(name).replaceAll("_", " ")} ${fixed(value)}`).join("\n");
  const verdict = row.verdict === "higher" || row.verdict === "lower" ? (row.verdict === row.better ? "better" : "worse") : row.verdict ?? "";
  return h("tr", { "data-hint": hint || null }, h("th", { scope: "row" }, visible(row.name).replaceAll("_", " ")),
    h("td", null, row.value === null ? null : strip({ value: row.value, control: row.control_value ?? null, others: rivals.map(([, value]) => value), band, low, high: top, label: row.name })),
    h("td", { class: "number" }, fixed(row.value)),
    h("td", null, row.control === undefined ? "" : [visible(row.control).replaceAll("_", " "), " ", h("span", { class: "note" }, fixed(row.control_value))]),
    h("td", { class: `verdict ${verdict}` }, verdict));
}

function fillShelf(shelf, { source, about, kind, count, columns, overview }) {
  const kinds = Object.entries(about.counts).filter(([, n]) => n).map(([name]) => name.replace(/s$/, ""));
  const open = (index) => { location.hash = `#/${kind}/${index}`; };
  const titleOf = async (index) => (await source.titles(kind, [index]))[index];
  const map = columns.map_x && columns.map_y ? drawScatter({ x: columns.map_x, y: columns.map_y, cluster: columns.cluster ?? null, clusters: overview.clusters ?? [], nameOf: titleOf, open }) : null;
  const table = drawTable({ columns, count, link: (index) => `#/${kind}/${index}`, titles: (indices) => source.titles(kind, indices),
    matching: (text) => source.matching(kind, text), onFilter: (set) => map?.highlight(set) });
  const tabs = kinds.length > 1 ? h("nav", { class: "tabs", "aria-label": "kinds of cards" }, kinds.map((one) => h("a", { href: `#/cards/${one}`, "aria-current": one === kind ? "page" : null }, `${one}s`))) : null;
  shelf.append(...[
    map && h("div", { class: "part" }, h("h2", null, "Map"), h("p", { class: "note" }, "Cards that point the same way lie near each other. What the table filters is lit here."), map.element),
    h("div", { class: "part" }, h("div", { class: "headline" }, h("h2", null, "Cards"), tabs), drawDistributions(columns), table),
  ].filter(Boolean));
}

/** Small multiples: how each column is distributed over all cards. */
function drawDistributions(columns) {
  const names = Object.keys(columns).filter((name) => !["map_x", "map_y", "cluster", "rate", "n_fired"].includes(name) && filled(columns[name]) >= ENOUGH).slice(0, DISTRIBUTIONS);
  if (!names.length) return null;
  return h("div", { class: "multiples distributions" }, names.map((name) => {
    const binned = bin(columns[name]);
    return binned && histogram(binned, { label: short(visible(name.replace("score.", "").replaceAll("_", " ")), 40) });
  }));
}

function bin(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  if (!(low < high)) return null;
  const counts = new Array(BINS).fill(0);
  for (const value of values) if (Number.isFinite(value)) counts[Math.min(BINS - 1, Math.floor(((value - low) / (high - low)) * BINS))] += 1;
  return { counts, edges: Array.from({ length: BINS + 1 }, (_, i) => low + ((high - low) * i) / BINS) };
}
