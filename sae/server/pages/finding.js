// Search: cards whose title, words or explanations hold every word that was typed.

import { h, number, plural, short, visible } from "./dom.js";

const SHOWN = 200;

export async function drawFound({ source, about, text }) {
  const kinds = Object.entries(about.counts).filter(([, n]) => n).map(([name]) => name.replace(/s$/, ""));
  const parts = await Promise.all(kinds.map(async (kind) => ({ kind, ...(await source.search(kind, text, SHOWN)) })));
  const asks = await source.asks();
  const questions = [["phrase", "latents that stand for it"], ["sentence", "what fires on it, token by token"]].filter(([name]) => asks[name]);
  const total = parts.reduce((sum, part) => sum + part.total, 0);
  return h("div", { class: "found" },
    h("header", null, h("p", { class: "kicker" }, "search"), h("h1", null, h("bdi", null, short(visible(text), 80))), h("p", { class: "note" }, total ? `${plural(total, "card")} hold it` : "No card holds it in its title, its words or its explanations."),
      questions.length ? h("p", { class: "note orders" }, h("span", null, "ask the model:"), questions.map(([name, told]) => h("a", { href: `#/ask?${new URLSearchParams({ [name]: text })}` }, told))) : null),
    parts.filter((part) => part.total).map((part) => h("section", { class: "part" }, h("h2", null, `${part.kind}s `, h("span", { class: "note" }, number(part.total))),
      h("ol", { class: "hits" }, part.found.map((hit) => drawHit(part.kind, hit, text))),
      part.total > part.found.length ? h("p", { class: "note" }, `The first ${number(part.found.length)} are shown.`) : null)));
}

function drawHit(kind, hit, text) {
  return h("li", null, h("a", { href: `#/${kind}/${hit.index}` }, h("span", { class: "index" }, number(hit.index)), h("bdi", null, marked(short(visible(hit.title), 120), text))),
    hit.where === "title" ? null : h("p", { class: "note" }, `${hit.where}: `, h("bdi", null, marked(visible(hit.snippet), text))));
}

/** The text with the words that were looked for marked. */
function marked(shown, text) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean), lowered = shown.toLowerCase();
  // Lower case may have another length than the text itself; then nothing is marked.
  if (!terms.length || lowered.length !== shown.length) return shown;
  const pieces = [];
  for (let at = 0; at < shown.length;) {
    const next = terms.map((term) => [lowered.indexOf(term, at), term.length]).filter(([place]) => place >= 0).sort((a, b) => a[0] - b[0] || b[1] - a[1])[0];
    if (!next) { pieces.push(shown.slice(at)); break; }
    pieces.push(shown.slice(at, next[0]), h("mark", null, shown.slice(next[0], next[0] + next[1])));
    at = next[0] + next[1];
  }
  return pieces;
}
