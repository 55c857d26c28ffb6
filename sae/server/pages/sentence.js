// A sentence, live: every token shaded by what fires on it; a token shows its latents, a latent shades the sentence.

import { fixed, h, number, share, short, visible } from "./dom.js";
import { debounced, drawChoice, keepAddress, latest } from "./live.js";

const REST = 120;
const SHOWN = 16;
const LONGEST_TOKEN = 60;
const LONGEST_ADDRESS = 1500;

export function sentenceQuestion({ source, ask, text }) {
  const state = { answer: null, token: null, latent: null, looked: null, by: "share" };
  const area = h("textarea", { rows: 3, "aria-label": "sentence", placeholder: "Type or paste a text", spellcheck: "false", autocomplete: "off", maxlength: ask.most_characters });
  area.value = text;
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const shading = h("p", { class: "note shading", "aria-live": "polite" });
  const line = h("div", { class: "tokens", translate: "no", role: "group", "aria-label": "tokens; the arrow keys go from one to the next" });
  const side = h("div", { class: "token-latents" });
  const stage = h("div", { class: "sentence", hidden: true }, h("div", null, shading, line), side);
  const tell = (error) => { problem.textContent = error?.message ?? ""; problem.hidden = !error; };

  const questions = latest((question) => source.ask("sentence", question), (answer) => { tell(null); take(answer); }, (error) => { stage.hidden = true; tell(error); });
  const put = () => {
    keepAddress("#/ask", { sentence: area.value.length <= LONGEST_ADDRESS ? area.value : "" });
    if (area.value.trim()) questions.ask({ text: area.value });
    else { questions.forget(); stage.hidden = true; tell(null); }
  };
  area.addEventListener("input", debounced(put, REST));
  if (text.trim()) put();
  else queueMicrotask(() => area.focus());

  function take(answer) {
    state.answer = answer;
    const readable = answer.tokens.map((token, i) => (token.read ? i : -1)).filter((i) => i >= 0);
    if (!readable.includes(state.token)) state.token = readable.at(-1) ?? null;
    if (!answer.latents.some((one) => one.index === state.latent)) state.latent = null;
    stage.hidden = false;
    line.replaceChildren(...answer.tokens.map(drawToken));
    paint();
    drawSide();
  }

  // A token is no <button>: that would be a box of its own, and could not break where its line does.
  function drawToken(token, i) {
    if (!token.read) return h("span", { class: "token unread", "data-hint": `${token.kind}: left out of training, so there is no vector here` }, shown(token.text));
    return h("span", { role: "button", class: "token", "data-token": i, tabindex: -1, onclick: () => pick(i) }, broken(token.text));
  }

  function pick(i) {
    state.token = i;
    paint();
    drawSide();
  }

  line.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Enter: 0, " ": 0 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const buttons = [...line.querySelectorAll("[data-token]")];
    const next = buttons[buttons.findIndex((one) => Number(one.dataset.token) === state.token) + by];
    if (!next) return;
    pick(Number(next.dataset.token));
    next.focus();
  });

  /** Shade the tokens by the latent that is pointed at or chosen, else by all together. */
  function paint() {
    const index = state.looked ?? state.latent;
    const latent = state.answer.latents.find((one) => one.index === index) ?? null;
    const values = new Map(latent ? latent.at.map(([position, value]) => [position, value]) : state.answer.tokens.map((token, i) => [i, token.total]));
    const most = latent ? Math.max(latent.max, ...values.values()) : Math.max(...values.values(), 1e-9);
    for (const button of line.querySelectorAll("[data-token]")) {
      const i = Number(button.dataset.token), value = values.get(i) ?? 0;
      button.style.setProperty("--lit", (value / (most || 1)).toFixed(3));
      button.dataset.hint = latent ? `latent ${latent.index}: ${number(value)}` : `all latents: ${number(value)}`;
      button.setAttribute("aria-pressed", String(i === state.token));
      button.tabIndex = i === state.token ? 0 : -1;
    }
    shading.replaceChildren(...(latent
      ? [`Shaded by latent ${latent.index}, `, h("bdi", null, short(visible(latent.title), 60)), state.latent === null ? "" : [" · ", h("button", { type: "button", class: "link", onclick: () => choose(null) }, "by all latents")]].flat()
      : ["Shaded by the sum of all activations."]));
  }

  function choose(index) {
    state.latent = index;
    state.looked = null;
    paint();
    drawSide();
  }

  function drawSide() {
    const token = state.answer.tokens[state.token];
    if (!token) { side.replaceChildren(h("p", { class: "note" }, "No token has a vector here.")); return; }
    const rows = state.answer.latents.flatMap((latent) => {
      const at = latent.at.find(([position]) => position === state.token);
      return at ? [{ index: latent.index, title: latent.title, activation: at[1], share: at[2] ?? 0, max: latent.max }] : [];
    });
    const by = state.by;
    rows.sort((a, b) => b[by] - a[by]);
    const most = Math.max(...rows.map((row) => row.activation), 1e-9);
    const order = (name, title) => h("button", { type: "button", class: "link", "aria-pressed": String(by === name), onclick: () => { state.by = name; drawSide(); } }, title);
    side.replaceChildren(
      h("h2", { translate: "no" }, h("code", null, shown(token.text))),
      h("p", { class: "note orders" }, h("span", null, "sorted by"), order("share", "share of its maximum"), order("activation", "activation")),
      rows.length ? drawChoice(rows.slice(0, SHOWN).map((row) => ({
        ...row, value: row.activation, length: by === "share" ? row.share : row.activation / most,
        hint: `activation ${fixed(row.activation)}, ${share(row.share)} of its maximum ${fixed(row.max)}`,
      })), state.latent, { choose, look: (index) => { state.looked = index; paint(); } }) : h("p", { class: "note" }, "No latent fires here."));
  }

  return h("div", { class: "part" }, area, problem, stage);
}

/** A token's text, its line breaks shown and done. */
function broken(text) {
  return shown(text).split("↵").flatMap((part, i) => (i ? ["↵", h("br"), part] : [part]));
}

function shown(text) {
  return short(visible(text), LONGEST_TOKEN);
}
