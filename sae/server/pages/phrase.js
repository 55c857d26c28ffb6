// A phrase, and the latents that stand nearest to it in the space that images and texts share.

import { strip } from "./charts.js";
import { fixed, h, number, share } from "./dom.js";
import { debounced, keepAddress, latentLink, latest } from "./live.js";

const REST = 150;
const SHOWN = 20;

export function phraseQuestion({ source, ask, text }) {
  const input = h("input", { type: "search", class: "asked", "aria-label": "phrase", placeholder: ask.words[0] ? `for example ${ask.words[0]}` : "a few words", autocomplete: "off", spellcheck: "false", maxlength: 300 });
  input.value = text;
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const result = h("div", { class: "answer", "aria-live": "polite" });
  const tell = (error) => { problem.textContent = error?.message ?? ""; problem.hidden = !error; };
  const questions = latest((question) => source.ask("phrase", question),
    (answer, question) => { tell(null); result.replaceChildren(...drawAnswer(answer, question.text)); },
    (error) => { result.replaceChildren(); tell(error); });
  const put = () => {
    const phrase = input.value.trim();
    keepAddress("#/ask", { phrase });
    if (phrase) questions.ask({ text: phrase });
    else { questions.forget(); result.replaceChildren(); tell(null); }
  };
  input.addEventListener("input", debounced(put, REST));
  if (text.trim()) put();
  else queueMicrotask(() => input.focus());
  const words = ask.words.slice(0, 8).map((word) => h("button", { type: "button", class: "link", onclick: () => { input.value = word; put(); } }, word));
  return h("div", { class: "part" }, input, words.length ? h("p", { class: "note orders" }, h("span", null, "try"), words) : null, problem, result);
}

function drawAnswer({ latents, control }, phrase) {
  const best = latents[0]?.cosine ?? 0;
  const high = Math.max(best, control.high) * 1.05;
  const verdict = best < control.low ? "Hardly any word does as badly: most likely nothing here stands for it." : best > control.high ? "Few words have a latent as near." : "";
  return [
    h("p", { class: "finding" }, `The best cosine, ${fixed(best)}, is above the best of ${share(control.above)} of ${number(control.n)} other words. ${verdict}`),
    h("p", { class: "note" }, `Best cosines of other words: median ${fixed(control.median)} (short tick); one in twenty is above ${fixed(control.high)} (long tick), one in twenty below ${fixed(control.low)}. Nearer than: the share of other words that are less near to the latent.`),
    h("div", { class: "scroll" }, h("table", { class: "nearest", "aria-label": `latents near ${phrase}` },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "latent"), h("th", { scope: "col" }, "cosine"), h("th", { scope: "col" }), h("th", { scope: "col", class: "number" }, "nearer than"))),
      h("tbody", null, latents.slice(0, SHOWN).map((one) => h("tr", { "data-latent": one.index },
        h("th", { scope: "row" }, latentLink(one)),
        h("td", null, strip({ value: one.cosine, control: control.high, others: [control.median], low: 0, high, label: "cosine" })),
        h("td", { class: "number" }, fixed(one.cosine)),
        h("td", { class: "number" }, share(one.above))))))),
  ];
}
