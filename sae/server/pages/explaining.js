// What people and methods said of a card: a list to vote on, edit and add to.

import { fixed, h, number, plural, visible } from "./dom.js";

const AUTHOR = "sae-author";

/** Draw the explanations of a card; they arrive after the card itself. With held-out examples they can be tested. */
export function drawExplanations(source, kind, index, testable = false) {
  const list = h("ol", { class: "said", "aria-live": "polite" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const tell = (error) => { problem.textContent = error ? error.message : ""; problem.hidden = !error; };
  const act = async (body) => {
    const author = await askAuthor();
    if (!author) return false;
    try {
      show(await source.explain(kind, index, { ...body, author }));
      tell(null);
      return true;
    } catch (error) {
      tell(error);
      return false;
    }
  };
  const show = (said) => {
    list.replaceChildren(...said.map((one) => drawOne(one, source.canWrite ? act : null, testable ? `#/blind/${kind}/${index}/${one.id}` : null)));
    if (!said.length) list.append(h("li", { class: "note" }, source.canWrite ? "Nobody has said what this is." : "None."));
  };
  source.explanations(kind, index).then(show, tell);
  return h("section", { class: "part explanations" }, h("h2", null, "Explanations"), list, problem,
    source.canWrite && textForm("Add", "What does it stand for?", "", async (text) => act({ act: "add", text })));
}

function drawOne(one, act, test) {
  const text = h("p", { class: "words" }, h("bdi", null, visible(one.text)));
  const about = [one.author, one.method === "person" ? null : one.method, one.given === null ? null : `given as ${number(one.given)}`,
    one.time.slice(0, 10), one.history.length ? plural(one.history.length, "earlier text") : null].filter(Boolean).join(" · ");
  const line = h("div", { class: "about note", "data-hint": one.history.map((old) => `${old.author}: ${visible(old.text)}`).join("\n") || null }, about, ...drawScore(one, test));
  const mine = one.votes[readAuthor()] ?? 0;
  const vote = (value, sign, label) => h("button", { type: "button", class: "vote", "aria-pressed": String(mine === value), "aria-label": label,
    onclick: () => act({ act: "vote", of: one.id, value: mine === value ? 0 : value }) }, sign);
  const item = h("li", { "data-id": one.id },
    h("div", { class: "votes" }, act && vote(1, "▲", "agree"), h("span", { class: "tally", "aria-label": `${one.tally} votes` }, number(one.tally)), act && vote(-1, "▼", "disagree")),
    h("div", { class: "body" }, text, line));
  if (act) line.append(" · ", h("button", { type: "button", class: "link", onclick: () => {
    const form = textForm("Save", "Explanation", one.text, async (changed) => act({ act: "edit", of: one.id, revision: one.revision, text: changed }), () => form.replaceWith(text));
    text.replaceWith(form);
    form.querySelector("textarea").focus();
  } }, "edit"));
  return item;
}

/** The mean of what raters made of it, and the way to rate it. */
function drawScore(one, test) {
  const present = one.scores.filter((score) => score.revision === one.revision);
  const hint = one.scores.map((score) => `${visible(score.rater)}: ${fixed(score.value)}, ${fixed(score.interval[0])} to ${fixed(score.interval[1])}${score.revision === one.revision ? "" : ", of an earlier text"}${score.again ? ", had met the examples" : ""}`);
  return [
    one.scores.length ? [" · ", h("span", { class: "scored", "data-hint": `on held-out examples, ½ is chance\n${hint.join("\n")}` }, present.length ? `score ${fixed(one.score)} by ${plural(present.length, "rater")}` : "no score of this text")] : null,
    test ? [" · ", h("a", { href: test }, "test it blind")] : null,
  ].flat().filter(Boolean);
}

function textForm(action, label, text, send, cancel = null) {
  const area = h("textarea", { rows: 2, maxlength: 2000, "aria-label": label, placeholder: label, required: true });
  area.value = text;
  const button = h("button", { class: "plain", type: "submit" }, action);
  const form = h("form", { class: "say" }, area, h("div", { class: "actions" }, button, cancel && h("button", { class: "plain", type: "button", onclick: cancel }, "Cancel")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!area.value.trim()) return;
    button.disabled = true;
    // What was typed stays where it is until it has been kept.
    if (await send(area.value.trim())) area.value = "";
    button.disabled = false;
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    if (event.key === "Escape") (cancel ?? (() => area.blur()))();
  });
  return form;
}

export function readAuthor() {
  return localStorage.getItem(AUTHOR) ?? "";
}

/** Ask once under which name to write, or ask anew; it stays in this browser. */
export function askAuthor(anew = false) {
  if (readAuthor() && !anew) return Promise.resolve(readAuthor());
  const input = h("input", { name: "author", required: true, maxlength: 80, autocomplete: "name", "aria-label": "Your name" });
  const dialog = h("dialog", { class: "ask" }, h("form", { method: "dialog" }, h("h2", null, "Your name"),
    h("p", { class: "note" }, "It is kept with what you write, and in this browser."), input,
    h("div", { class: "actions" }, h("button", { class: "plain", value: "ok" }, "Continue"), h("button", { class: "plain", value: "", formnovalidate: true }, "Cancel"))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    const author = dialog.returnValue === "ok" ? input.value.trim() : "";
    if (author) localStorage.setItem(AUTHOR, author);
    dialog.remove();
    resolve(author);
  }));
}
