// Steering, live: a text or a picture, a dose of a latent, and what the model answers before and after.

import { fixed, h, number, plural, share, short, visible } from "./dom.js";
import { base64Of, debounced, drawBase64, drawMissing, dropZone, latentLink, latest } from "./live.js";
import { drawCurve } from "./steer_curve.js";

const REST = 250;
const STEPS = 40;
const KINDS = {
  add: ["add", "so many of its maxima are added"],
  clamp: ["clamp", "its activation is set to so many of its maxima, also where it is silent"],
  scale: ["scale", "its activation is multiplied where it fires"],
  remove: ["remove", "so large a share of its activation is taken out; 2 turns it round"],
};

/** The page of steering with one latent. */
export async function drawSteer({ source, about, kind, index }) {
  const [card, asks] = await Promise.all([source.card(kind, index), source.asks()]);
  const head = h("header", null, h("p", { class: "kicker" }, h("span", null, "steering"), latentLink({ index, title: card.title })), h("h1", null, "What changes with this latent?"),
    h("p", { class: "note" }, "Everything else stays, what the dictionary does not explain too. Random latents that write as much show what any change does."));
  if (!asks.steer) return h("div", { class: "asking" }, head, drawMissing(source, about, "Steering"));
  return h("div", { class: "asking steering" }, head, panel(source, asks.steer, card, index));
}

function panel(source, ask, card, latent) {
  const state = { input: null, kind: "add", strength: 2, at: "all", curve: null };
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const tell = (error) => {
    problem.textContent = error?.message ?? "";
    problem.hidden = !error;
    places?.field.setAttribute("aria-invalid", String(Boolean(error?.message.startsWith("at:"))));
  };
  const held = h("p", { class: "note", "aria-live": "polite" }), answers = h("div", { class: "answers-of" }), curve = h("div"), verdict = h("p", { class: "finding" });
  const waiting = h("p", { class: "waiting", hidden: true }, "Asking the model…");
  const result = h("div", { class: "steered", hidden: true }, h("div", null, held, answers), h("div", null, h("h2", null, "Dose and response"), curve, verdict));
  const question = (more) => ({ latent, kind: state.kind, strength: state.strength, at: state.at, ...state.input, ...more });
  const failed = (error) => { tell(error); result.hidden = waiting.hidden = true; };
  const one = latest((asked) => source.ask("steer", asked), (answer) => { tell(null); result.hidden = false; waiting.hidden = true; held.textContent = toldOf(answer, state); answers.replaceChildren(...drawAnswers(answer)); }, failed);
  const all = latest((asked) => source.ask("steer", asked), (found) => { state.curve = drawCurve(found); curve.replaceChildren(state.curve.element); state.curve.mark(state.strength); verdict.textContent = toldOfCurve(found, state.kind); }, failed);
  const put = () => { if (!state.input) return; waiting.hidden = !result.hidden; one.ask(question()); };
  const putAll = () => { if (!state.input) return; put(); all.ask(question({ curve: true })); };
  const doses = doseControls(ask, state, { moved: () => { state.curve?.mark(state.strength); }, rested: debounced(put, 60), changed: putAll });
  const places = placeField(ask, (at) => { state.at = at; putAll(); });
  const take = (input) => { state.input = input; putAll(); };
  const given = ask.takes === "image" ? pictureField(source, ask, card, take, tell) : textField(ask, card, take, () => { state.input = null; one.forget(); all.forget(); result.hidden = true; tell(null); });
  return h("div", { class: "part" }, h("div", { class: "given" }, given, h("div", null, doses, places?.element)), problem, waiting, result);
}

/** The kind of change and its dose. */
function doseControls(ask, state, { moved, rested, changed }) {
  const slider = h("input", { type: "range", "aria-label": "dose", class: "dose" }), shown = h("output", null), says = h("p", { class: "note" });
  const set = () => {
    const { low, high, neutral } = ask.kinds[state.kind];
    Object.assign(slider, { min: low, max: high, step: (high - low) / STEPS });
    state.strength = neutral === high ? low : neutral + (high - neutral) / 2;
    slider.value = state.strength;
    shown.textContent = number(state.strength);
    says.textContent = KINDS[state.kind][1];
  };
  slider.addEventListener("input", () => { state.strength = Number(slider.value); shown.textContent = number(state.strength); moved(); rested(); });
  const buttons = Object.keys(ask.kinds).map((kind) => h("button", { type: "button", class: "link", "aria-pressed": String(kind === state.kind), onclick: (event) => {
    state.kind = kind;
    for (const other of event.target.parentElement.children) other.setAttribute("aria-pressed", String(other === event.target));
    set();
    changed();
  } }, KINDS[kind][0]));
  set();
  return h("div", { class: "doses" }, h("div", { class: "orders", role: "group", "aria-label": "kind of change" }, buttons), h("p", { class: "dose-line" }, slider, shown), says);
}

/** Where the change is made; nothing to choose where there is one position. */
function placeField({ positions, writes_on }, chosen) {
  if (positions && positions.first === positions.last) return null;
  const field = h("input", { type: "text", value: "all", spellcheck: "false", autocomplete: "off", maxlength: 200, "aria-describedby": "at-says" });
  field.addEventListener("input", debounced(() => chosen(field.value.trim() || "all"), REST));
  const code = (word) => h("code", null, word), { first, last, cls } = positions ?? {};
  const counted = positions ? [` from ${first} to ${last}, ${cls ? "the class token and then " : ""}row by row`] : [", tokens from 0, the beginning of the text among them"];
  const says = h("p", { class: "note", id: "at-says" }, code("all"), ", ", code("firing"), " (where it fires)", cls ? [", ", code("cls")] : null, ", numbers such as ", code("3 -1"), " or ranges such as ", code("0:4"), counted, ".",
    writes_on ? [" New tokens change with ", code("all"), ", ", code("firing"), " and ranges without an end, such as ", code("4:"), "."] : null);
  return { field, element: h("div", { class: "at" }, h("label", null, h("span", null, "at"), field), says) };
}

function textField(ask, card, take, clear) {
  const area = h("textarea", { rows: 3, "aria-label": "text", placeholder: "Type or paste a text", spellcheck: "false", autocomplete: "off", maxlength: ask.most_characters });
  const put = () => (area.value.trim() ? take({ text: area.value }) : clear());
  area.addEventListener("input", debounced(put, REST));
  const example = card.examples?.random?.[0] ?? card.examples?.top?.[0];
  if (example?.tokens) {
    area.value = example.tokens.join("");
    queueMicrotask(put);
  }
  return h("div", null, area);
}

function pictureField(source, ask, card, take, tell) {
  const frame = h("div", { class: "picture" });
  const show = (data) => { frame.replaceChildren(drawBase64(data, "the picture to steer")); take({ image: data }); };
  const zone = dropZone("Drop a picture, or choose one", async ([file]) => show(await base64Of(file)));
  const load = async (name) => {
    const response = await fetch(source.image(name));
    if (response.ok) show(await base64Of(await response.blob()));
    else tell(new Error("That picture is not in the catalog."));
  };
  const examples = [...(card.examples?.random ?? []).slice(0, 4), ...(card.examples?.top ?? []).slice(0, 4)].filter((one) => one.image && source.image(one.image));
  const choices = examples.map((one) => h("button", { type: "button", class: "thumb-button", "aria-label": `take ${one.image}`, onclick: () => load(one.image) }, h("img", { src: source.image(one.image), alt: "", decoding: "async" })));
  if (examples.length) queueMicrotask(() => load(examples[0].image));
  return h("div", { class: "pictures-of" }, frame, h("div", null, choices.length ? [h("p", { class: "note" }, "At random, and where it fires most:"), h("div", { class: "choices" }, choices)] : null, zone, h("p", { class: "note" }, `${ask.formats.join(", ")}; it stays on this machine.`)));
}

function toldOf({ held, kl }, { kind, at }) {
  const silent = held.n === 0, here = at === "all" ? "here" : `at ${held.of === 1 ? "this position" : `these ${number(held.of)} positions`}`;
  const fires = silent ? `The latent is silent ${here}` : `Untouched, the latent reaches ${fixed(held.value)} ${here}${held.share === null ? "" : `, ${share(held.share)} of its maximum`}`;
  return `${fires}${silent && (kind === "scale" || kind === "remove") ? ", so this changes nothing" : ""}. Cost: all answers move by ${fixed(kl)} nats.`;
}

/** Answers before and after, side by side. */
function drawAnswers({ answers, written }) {
  const most = Math.max(...answers.flatMap((one) => [one.before, one.after]), 1e-9);
  const bar = (value, kind) => h("td", { class: kind }, h("span", { class: "length", "aria-hidden": "true" }, h("span", { class: "fill", vars: { "--share": value / most } })), h("span", { class: "value" }, odds(value)));
  return [
    h("table", { class: "before-and-after" }, h("thead", null, h("tr", null, ["answer", "before", "after"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, answers.map((one) => h("tr", { "data-answer": one.name }, h("th", { scope: "row" }, h("code", { translate: "no" }, short(visible(one.name), 40))), bar(one.before, "was"), bar(one.after, "is"))))),
    written ? h("div", { class: "written" }, [["before", "It writes on"], ["after", "Steered, it writes on"]].map(([name, title]) => h("section", null, h("h3", null, title), h("p", { class: "excerpt", translate: "no" }, h("bdi", { dir: "auto" }, visible(written[name] || " ").split("↵").flatMap((line, i) => (i ? ["↵", h("br"), line] : [line]))))))) : null,
  ].filter(Boolean);
}

function odds(value) {
  return value < 0.0005 ? "<0.001" : value.toFixed(3);
}

function toldOfCurve({ strengths, lines, control }, kind) {
  const [target] = lines, last = target.values.at(-1), dose = strengths.at(-1);
  if (!control) return "";
  const low = control.low.at(-1), high = control.high.at(-1);
  const beyond = last > high || last < low;
  const range = odds(low) === odds(high) ? odds(low) : `${odds(low)} to ${odds(high)}`;
  return `At dose ${number(dose)} “${visible(target.name)}”, the answer that it ${kind === "remove" ? "lowers" : "raises"} most, has probability ${odds(last)}; under ${plural(control.n, "random latent")} that write as much ${range}${beyond ? "" : ", so this is not distinguishable from them"}. The answer that each of these moves most moves by ${odds(control.own)} in the median.`;
}
