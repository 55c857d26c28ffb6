// Units that a finding's rows name, as links to their cards: latents and neurons by number, alone or in lists.

import { fixed, h, number, short, visible } from "./dom.js";

const UNIT = /^(latent|neuron)[: ](\d{1,12})$/;
const LONGEST = 90;

/** The units that a value stands for: [{kind, index}]; none for other values. */
export function unitsIn(column, value) {
  const kind = column.replace(/s$/, "");
  if ((kind === "latent" || kind === "neuron") && /^\d{1,12}( \d{1,12})*$/.test(Array.isArray(value) ? value.join(" ") : String(value))) {
    return (Array.isArray(value) ? value.join(" ") : String(value)).split(" ").map((index) => ({ kind, index: Number(index) }));
  }
  const match = typeof value === "string" ? UNIT.exec(value) : null;
  return match ? [{ kind: match[1], index: Number(match[2]) }] : [];
}

/** A value as a reader wants it, units as links if the catalog has cards of them. */
export function drawValue(column, value, counts) {
  if (value === null || value === undefined || value === "") return "";
  const units = unitsIn(column, value);
  if (units.length && units.every(({ kind, index }) => index < (counts[`${kind}s`] ?? 0))) {
    return units.flatMap((unit, i) => [i ? " " : "", unitLink(unit, units.length > 1 || column === unit.kind ? unit.index : `${unit.kind} ${unit.index}`)]);
  }
  if (typeof value === "number") return Number.isInteger(value) ? number(value) : fixed(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  const text = visible(Array.isArray(value) ? value.join(" ") : typeof value === "object" ? JSON.stringify(value) : String(value));
  return h("bdi", { title: text.length > LONGEST ? short(text, 1000) : null }, short(text, LONGEST));
}

export function unitLink({ kind, index }, text) {
  return h("a", { href: `#/${kind}/${index}`, "data-unit": `${kind} ${index}` }, text);
}

/** Put the titles of units into the hints of their links, once they are here. */
export async function nameUnits(source, root) {
  const links = [...root.querySelectorAll("[data-unit]:not([data-hint])")];
  for (const kind of new Set(links.map((one) => one.dataset.unit.split(" ")[0]))) {
    const of = links.filter((one) => one.dataset.unit.startsWith(`${kind} `));
    const titles = await source.titles(kind, [...new Set(of.map((one) => Number(one.dataset.unit.split(" ")[1])))]).catch(() => ({}));
    for (const link of of) {
      const title = titles[link.dataset.unit.split(" ")[1]];
      if (title) link.dataset.hint = `${link.dataset.unit}: ${short(visible(title), 200)}`;
    }
  }
}
