// Questions about one thing: a sentence, a phrase or a picture, and the latents that answer to it.

import { h, plural } from "./dom.js";
import { drawMissing } from "./live.js";
import { phraseQuestion } from "./phrase.js";
import { pictureQuestion } from "./picture.js";
import { sentenceQuestion } from "./sentence.js";

const KINDS = [
  ["sentence", "Sentence", "Type, and see which latents fire on every token.", sentenceQuestion],
  ["phrase", "Phrase", "Type what you look for, and get the latents that stand for it.", phraseQuestion],
  ["image", "Picture", "Drop a picture, and see which latents fire on it, and where.", pictureQuestion],
];

/** The page of questions; `asked` are the fields of its address, of which the first decides the kind. */
export async function drawAsk({ source, about, asked }) {
  const asks = await source.asks();
  const there = KINDS.filter(([name]) => asks[name]);
  const wanted = KINDS.find(([name]) => asked.has(name));
  const kind = wanted ?? there[0] ?? KINDS[0];
  const text = asked.get(kind[0]) ?? "";
  const tabs = h("nav", { class: "tabs", "aria-label": "kinds of questions" }, there.map(([name, title]) => h("a", { href: `#/ask?${new URLSearchParams({ [name]: "" })}`, "aria-current": name === kind[0] ? "page" : null }, title)));
  const head = h("header", null, h("p", { class: "kicker" }, h("span", null, "ask the model")), h("h1", null, kind[1]), h("p", { class: "note" }, kind[2]));
  if (!there.length) return h("div", { class: "asking" }, head, drawMissing(source, about, "This"));
  if (!asks[kind[0]]) return h("div", { class: "asking" }, head, tabs, h("p", { class: "part note" }, cannot(kind[0], about)));
  return h("div", { class: "asking" }, head, there.length > 1 ? tabs : null, kind[3]({ source, ask: asks[kind[0]], text }));
}

function cannot(kind, about) {
  if (kind === "phrase" && about.modality === "image") return `This catalog does not say where its ${plural(about.counts.latents ?? 0, "latent")} lie in the space of images and texts: it needs inputs with named classes, and catalogs of earlier versions have to be built again.`;
  return about.modality === "image" ? "This dictionary reads images: ask with a picture or a phrase." : "This dictionary reads text: ask with a sentence.";
}
