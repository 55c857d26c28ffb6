// Contrast: two sets in, the latents that tell them apart out, beside what chance makes of as many latents.

import { drawDifferences, drawFinding } from "./contrast_result.js";
import { h } from "./dom.js";
import { setEditor } from "./contrast_set.js";
import { drawMissing, keepAddress, latest } from "./live.js";

const LONGEST_ADDRESS = 3000;

/** The page of contrasts; `asked` holds a and b (texts) or a_label and b_label, from its address. */
export async function drawContrast({ source, about, asked }) {
  const ask = (await source.asks()).contrast;
  const head = h("header", null, h("p", { class: "kicker" }, h("span", null, "ask the model")), h("h1", null, "Contrast"),
    h("p", { class: "note" }, "Two sets in, the latents that tell them apart out, with what chance alone would find."));
  if (!ask) return h("div", { class: "asking" }, head, drawMissing(source, about, "A contrast"));
  const sets = ["a", "b"].map((name) => setEditor(name.toUpperCase(), ask, { texts: asked.get(name), label: asked.get(`${name}_label`) }));
  const pool = h("select", { "aria-label": "an example counts by" }, h("option", { value: "max" }, "its strongest position"), h("option", { value: "mean" }, "the mean of its positions"));
  if (asked.get("pool") === "mean") pool.value = "mean";
  const limit = h("input", { type: "number", min: 1, max: ask.most_examples, value: Number(asked.get("limit")) || 100, "aria-label": "most examples of a label" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const result = h("div", { "aria-live": "polite" });
  const button = h("button", { type: "submit", class: "plain primary" }, "Compare");
  const tell = (message) => { problem.textContent = message; problem.hidden = !message; };
  const done = () => { button.disabled = false; button.textContent = "Compare"; };
  const questions = latest((question) => source.ask("contrast", question),
    (answer) => { done(); tell(""); result.replaceChildren(drawFinding(answer, ask), drawDifferences(answer)); },
    (error) => { done(); result.replaceChildren(); tell(error.message); });
  const put = () => {
    const [a, b] = sets.map((one) => one.read());
    if (!a || !b) { tell(`Set ${a ? "B" : "A"} is empty.`); return; }
    remember(sets, pool.value, Number(limit.value));
    button.disabled = true;
    button.textContent = "Comparing…";
    questions.ask({ a, b, pool: pool.value, limit: Number(limit.value) });
  };
  const form = h("form", { class: "part contrast", onsubmit: (event) => { event.preventDefault(); put(); } },
    h("div", { class: "sets" }, sets.map((one) => one.element)),
    h("div", { class: "settings" }, button,
      ask.pooled ? null : h("label", null, "an example counts by ", pool),
      Object.keys(ask.labels).length ? h("label", null, "of a label at most ", limit) : null));
  if (sets.every((one) => one.read()) && ["a", "b"].every((name) => asked.has(name) || asked.has(`${name}_label`))) queueMicrotask(put);
  return h("div", { class: "asking" }, head, form, problem, result);
}

/** Keep both sets in the address, as far as they fit. */
function remember(sets, pool, limit) {
  const [a, b] = sets.map((one) => one.address());
  const kept = { a: a.texts, a_label: a.label, b: b.texts, b_label: b.label, pool: pool === "mean" ? pool : "", limit: limit === 100 ? "" : limit };
  const length = (a.texts ?? "").length + (b.texts ?? "").length;
  keepAddress("#/contrast", length <= LONGEST_ADDRESS ? kept : {});
}
