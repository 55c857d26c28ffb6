// Labelling blind: items drawn from all levels of a unit in random order, one at a time, without any activation. Every
// label goes to the server at once, so whoever comes back goes on where they stopped.

import { strip } from "./charts.js";
import { cut, fixed, h, number, plural, visible } from "./dom.js";
import { askAuthor, readAuthor } from "./explaining.js";

const LONGEST_TOKEN = 200;

export async function drawLabelling({ source, name }) {
  if (!source.canWrite) throw new Error("These pages are files, which keep no labels: serve the catalog instead.");
  const page = h("article", { class: "blind labelling" },
    h("header", null, h("p", { class: "kicker" }, h("span", null, "labelling, blind"), h("a", { href: `#/lab/${encodeURIComponent(name)}` }, visible(name))), h("h1", null, "What is this?")),
    h("div", { class: "stage" }));
  await stage(page, { source, name });
  return page;
}

/** Put on the page what comes next: a name, the items, or the end. */
async function stage(page, { source, name }) {
  const holder = page.querySelector(".stage"), rater = readAuthor();
  const again = () => stage(page, { source, name });
  const labelling = await source.labelling(name, rater);
  if (!rater) holder.replaceChildren(drawStart(labelling, again));
  else if (labelling.answers.includes(null)) holder.replaceChildren(drawItems({ source, name, rater, ...labelling }, again));
  else holder.replaceChildren(drawEnd(labelling, rater, again));
}

function drawStart({ slots, categories }, again) {
  return h("div", null, h("p", { class: "lead" }, `${plural(slots.length, "item")} to name: `, categories.map((one, i) => [i ? ", " : "", h("bdi", null, visible(one))]), "."),
    h("p", { class: "actions" }, h("button", { class: "plain strong", type: "button", onclick: async () => { if (await askAuthor()) again(); } }, "Begin")));
}

function drawItems({ source, name, rater, slots, categories, answers }, again) {
  const shown = h("div", { class: "shown", "aria-live": "polite" });
  const count = h("span", { class: "count" }), bar = h("progress", { max: slots.length, "aria-label": "labelled" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  let at = answers.indexOf(null), busy = false;
  const draw = () => {
    count.textContent = `${number(at + 1)} of ${number(slots.length)}`;
    bar.value = answers.filter((one) => one !== null).length;
    shown.replaceChildren(drawSlot(slots[at], source.item(name, at)));
    for (const button of buttons) button.setAttribute("aria-pressed", String(answers[at] === Number(button.dataset.category)));
    if (at + 1 < slots.length && !slots[at + 1].tokens) new Image().src = source.item(name, at + 1);
  };
  const answer = async (category) => {
    if (busy) return;
    busy = true;
    try {
      await source.label(name, { rater, slot: at, category });
      problem.hidden = true;
      answers[at] = category;
      const next = answers.indexOf(null, at);
      at = next < 0 ? answers.indexOf(null) : next;
      if (at < 0) await again(); else draw();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    busy = false;
  };
  const back = () => { if (at > 0) { at -= 1; draw(); } };
  const buttons = categories.map((one, i) => h("button", { type: "button", class: "plain strong", "data-key": String(i + 1), "data-category": i, "aria-pressed": "false", onclick: () => answer(i) }, h("bdi", null, visible(one)), " ", h("kbd", null, i + 1)));
  draw();
  return h("div", { class: "questions" }, h("p", { class: "progress" }, count, bar), shown, problem,
    h("p", { class: "actions categories" }, buttons, h("button", { type: "button", class: "plain", "data-key": "u", onclick: back }, "Back ", h("kbd", null, "u"))),
    h("p", { class: "note" }, "How strongly the unit answers is not known here. Some items come twice. Every label is kept at once, so you can stop at any time. You label as ", h("bdi", null, visible(rater)), " (", h("button", { type: "button", class: "link", onclick: async () => { if (await askAuthor(true)) again(); } }, "somebody else"), ")."));
}

/** An item as the rater sees it: a picture, or a text with the token in question marked. */
function drawSlot(slot, address) {
  if (!slot.tokens) return h("div", { class: "picture" }, h("img", { src: address, alt: "the picture in question", decoding: "async" }));
  return h("p", { class: "excerpt", translate: "no" }, h("bdi", { dir: "auto" }, slot.tokens.map((text, i) =>
    [h(i === slot.at ? "mark" : "span", null, cut(visible(text), LONGEST_TOKEN)), text.includes("\n") ? h("br") : null])));
}

function drawEnd({ slots, agreement }, rater, again) {
  const told = agreement && agreement.kappa !== null;
  return h("div", { class: told ? "result" : "" },
    told ? h("div", { class: "score" }, h("p", { class: "big" }, fixed(agreement.kappa)), h("p", null, "Cohen's kappa"),
      strip({ value: agreement.kappa, control: 0, band: agreement.interval, low: Math.min(0, agreement.interval[0]), high: 1, label: "kappa" }),
      h("p", { class: "note" }, `95 % interval ${agreement.interval.map(fixed).join(" to ")}; 0 is chance`)) : null,
    h("div", null, h("p", { class: "lead verdict" }, `All ${plural(slots.length, "item")} are labelled.`),
      agreement ? h("p", { class: "note" }, `You named ${number(agreement.same)} of the ${number(agreement.n)} items that came twice the same both times.${agreement.kappa === null ? " All of them alike, so chance would agree as well." : ""}`) : null,
      h("p", { class: "note" }, "Run the same sae lab label command again: it draws what the unit answers to at each level."),
      h("p", { class: "note" }, h("button", { type: "button", class: "link", onclick: async () => { if (await askAuthor(true)) again(); } }, "Label as somebody else"), " · you are ", h("bdi", null, visible(rater)))));
}
