// A blind test of an explanation: whoever rates sees its text and examples that the card does not show, without any
// activation, and says of each whether it fits. What they fire on is told at the end.

import { strip } from "./charts.js";
import { cut, fixed, h, number, plural, visible } from "./dom.js";
import { askAuthor, readAuthor } from "./explaining.js";

const Z = 1.959964;
const LONGEST_TOKEN = 200;

/** The page of a test; answers stay in this browser until all are given. */
export async function drawBlind({ source, kind, index, id }) {
  const [card, said] = await Promise.all([source.card(kind, index), source.explanations(kind, index)]);
  const explanation = said.find((one) => one.id === id);
  if (!explanation) throw new Error("There is no such explanation of this card.");
  if (!card.held_out) throw new Error("This card has no held-out examples: it fires too rarely, or its catalog keeps none.");
  const test = { source, kind, index, said, explanation, examples: shuffled(card.held_out, explanation.revision) };
  const page = h("article", { class: "blind" },
    h("header", null, h("p", { class: "kicker" }, h("span", null, "blind test"), h("a", { href: `#/${kind}/${index}` }, `${kind} ${index}`)),
      h("h1", { translate: "no" }, h("bdi", null, visible(explanation.text)))),
    h("div", { class: "stage" }));
  stage(page, test);
  return page;
}

/** Put on the page what comes next: a name, the questions, or the result. */
function stage(page, test) {
  const holder = page.querySelector(".stage"), author = test.source.canWrite ? readAuthor() : "";
  const state = recall(test, author);
  const again = () => stage(page, test);
  if (test.source.canWrite && !author) holder.replaceChildren(drawStart(test, again));
  else if (state.answers.includes(null)) holder.replaceChildren(drawQuestions(test, author, state, again));
  else holder.replaceChildren(drawResult(test, author, state, again));
}

function drawStart(test, again) {
  return h("div", null, h("p", { class: "lead" }, `${plural(test.examples.length, "example")} that the card does not show. Say of each whether the explanation fits.`),
    h("p", { class: "actions" }, h("button", { class: "plain strong", type: "button", "data-key": "y", onclick: async () => { if (await askAuthor()) again(); } }, "Begin")));
}

function drawQuestions(test, author, state, again) {
  const { examples, source } = test;
  const shown = h("div", { class: "shown", "aria-live": "polite" });
  const count = h("span", { class: "count" }), bar = h("progress", { max: examples.length, "aria-label": "answered" });
  const at = () => state.answers.indexOf(null);
  const draw = () => {
    const place = at();
    count.textContent = `${place + 1} of ${examples.length}`;
    bar.value = place;
    shown.replaceChildren(drawExample(examples[place], source));
    const next = examples[place + 1];
    if (next?.image) new Image().src = source.image(next.image);
  };
  const answer = (fits) => {
    state.answers[at()] = fits;
    remember(test, author, state);
    if (at() < 0) again(); else draw();
  };
  const back = () => {
    const last = at() - 1;
    if (last < 0) return;
    state.answers[last] = null;
    remember(test, author, state);
    draw();
  };
  const button = (key, label, act, style = "plain") => h("button", { type: "button", class: style, "data-key": key, onclick: act }, label, " ", h("kbd", null, key));
  draw();
  return h("div", { class: "questions" }, h("p", { class: "progress" }, count, bar), shown,
    h("p", { class: "ask" }, examples[0].tokens ? "Does the explanation fit the marked token?" : "Does the explanation fit this picture?"),
    h("p", { class: "actions" }, button("y", "Fits", () => answer(1), "plain strong"), button("n", "Does not fit", () => answer(0), "plain strong"), button("u", "Back", back)),
    h("p", { class: "note" }, "Some fit and some do not, and near misses are among them. You can stop at any time: your answers stay in this browser.", metBefore(test, author) ? " You have met these examples with another text of this card; the score will say so." : "", author ? [" You rate as ", h("bdi", null, visible(author)), " (", other(again), ")."] : ""));
}

function other(again) {
  return h("button", { type: "button", class: "link", onclick: async () => { if (await askAuthor(true)) again(); } }, "somebody else");
}

function metBefore({ said, explanation }, author) {
  return said.some((one) => one.scores.some((score) => score.rater === author && score.revision !== explanation.revision));
}

/** An example as the rater sees it: no value, no shading, no caption. */
function drawExample(example, source) {
  if (!example.tokens) {
    const address = source.image(example.image);
    return h("div", { class: "picture" }, address ? h("img", { src: address, alt: "the picture in question", decoding: "async" }) : h("span", { class: "missing" }, "picture missing"));
  }
  const asked = example.whole ? -1 : example.position - example.start;
  return h("p", { class: "excerpt", translate: "no" }, h("bdi", { dir: "auto" }, example.tokens.map((text, i) =>
    [h(i === asked ? "mark" : "span", null, cut(visible(text), LONGEST_TOKEN)), text.includes("\n") ? h("br") : null])));
}

function drawResult(test, author, state, again) {
  const { examples, explanation, kind, index, source } = test;
  const found = agreement(examples.map((one, i) => [state.answers[i], one.fires]));
  const kept = h("p", { class: "note", "aria-live": "polite" }, source.canWrite ? "" : "This page is a file, so the score is not kept.");
  const raters = h("div");
  const list = (said) => { const rows = drawRaters(said.find((one) => one.id === explanation.id)); raters.replaceChildren(...(rows ? [rows] : [])); };
  const keep = async () => {
    try {
      const said = await source.explain(kind, index, { act: "score", author, of: explanation.id, revision: explanation.revision, value: found.value, n: found.n, interval: found.interval });
      state.kept = true;
      remember(test, author, state);
      list(said);
      kept.replaceChildren("Kept with the explanation, as the score of ", h("bdi", null, visible(author)), ". ", h("button", { type: "button", class: "link", onclick: async () => { if (await askAuthor(true)) again(); } }, "Rate as somebody else"));
    } catch (error) {
      kept.replaceChildren(h("span", { class: "problem", role: "alert" }, visible(error.message)), " ", h("button", { type: "button", class: "link", onclick: keep }, "Try again"));
    }
  };
  // The log takes the first score of a rater for a text alone, so keeping it once more changes nothing.
  if (source.canWrite) keep(); else list(test.said);
  const right = (filter) => examples.reduce((sum, one, i) => (filter(one) ? [sum[0] + ((state.answers[i] === 1) === one.fires), sum[1] + 1] : sum), [0, 0]);
  const told = [["where it fires", right((one) => one.fires)], ["where it is silent", right((one) => !one.fires)], ["of these, near misses", right((one) => one.near)]].filter(([, [, n]]) => n);
  return h("div", { class: "result" },
    h("div", { class: "score" }, h("p", { class: "big" }, fixed(found.value)), h("p", null, "balanced accuracy"),
      strip({ value: found.value, control: 0.5, band: found.interval, low: 0, high: 1, label: "balanced accuracy" }),
      h("p", { class: "note" }, `95 % interval ${found.interval.map(fixed).join(" to ")}; tick: chance`)),
    h("div", null, h("p", { class: "lead verdict" }, verdict(found, kind, index)), kept,
      h("dl", { class: "facts" }, told.map(([name, [hits, n]]) => h("div", null, h("dt", null, name), h("dd", null, `${hits} of ${n} right`))))),
    raters,
    h("div", { class: "answers" }, [[true, "It fires"], [false, "It is silent"]].map(([fires, title]) => h("section", null, h("h2", null, title),
      h("ol", null, examples.map((one, i) => (one.fires === fires ? drawAnswer(one, state.answers[i], source) : null)))))));
}

function verdict({ interval: [low, high] }, kind, index) {
  if (low > 0.5) return `Better than chance: the explanation tells where ${kind} ${index} fires.`;
  if (high < 0.5) return `Worse than chance: where the explanation fits, ${kind} ${index} tends to be silent.`;
  return "Not distinguishable from chance, on this many examples.";
}

function drawAnswer(example, answer, source) {
  const right = (answer === 1) === example.fires;
  return h("li", { class: right ? "right" : "wrong" }, drawExample(example, source),
    h("p", { class: "note" }, right ? "✓ " : "✗ ", answer ? "you said it fits" : "you said it does not", example.fires ? `; activation ${number(example.value)}` : example.near ? "; a near miss" : ""));
}

/** Everybody's scores of an explanation; null where there are none. */
function drawRaters(explanation) {
  if (!explanation?.scores.length) return null;
  return h("section", { class: "raters" }, h("h2", null, "Everybody's scores"), h("table", null, h("tbody", null, explanation.scores.map((one) => h("tr", null,
    h("th", { scope: "row" }, h("bdi", null, visible(one.rater)), h("span", { class: "note" }, [one.method === "blind" ? "" : ` ${visible(one.method)}`, one.again ? " had met the examples" : "", one.revision === explanation.revision ? "" : " of an earlier text"])),
    h("td", null, strip({ value: one.value, control: 0.5, band: one.interval, low: 0, high: 1, label: "score" })),
    h("td", { class: "number" }, fixed(one.value)))))),
    explanation.score === null ? null : h("p", { class: "note mean" }, `Mean for this text: ${fixed(explanation.score)}.`));
}

/**
 * Balanced accuracy of answers by yes and no, [answer, truth] each, and its 95 % interval: the Wilson intervals of the
 * two shares joined by the squares of their lengths (Newcombe 1998), as `features/agreement.py` has it.
 */
export function agreement(pairs) {
  const ends = [true, false].map((fires) => {
    const of = pairs.filter(([, truth]) => truth === fires), hits = of.filter(([answer]) => (answer === 1) === fires).length;
    const n = of.length, share = hits / n, square = Z * Z;
    const middle = (share + square / (2 * n)) / (1 + square / n);
    const reach = (Z * Math.sqrt((share * (1 - share)) / n + square / (4 * n * n))) / (1 + square / n);
    return { share, low: Math.max(0, middle - reach), high: Math.min(1, middle + reach) };
  });
  const value = (ends[0].share + ends[1].share) / 2;
  const away = (end) => Math.hypot(...ends.map((one) => one.share - one[end])) / 2;
  return { value, n: pairs.length, interval: [Math.max(0, value - away("low")), Math.min(1, value + away("high"))] };
}

/** A fixed order for every text: the same for all who rate it. */
function shuffled(examples, seed) {
  let state = Array.from(seed).reduce((hash, letter) => Math.imul(hash ^ letter.codePointAt(0), 16777619) >>> 0, 2166136261);
  const draw = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const order = [...examples];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

const name = ({ explanation }, author) => `sae-blind ${explanation.revision} ${author}`;

function remember(test, author, state) {
  localStorage.setItem(name(test, author), JSON.stringify(state));
}

function recall(test, author) {
  const kept = JSON.parse(localStorage.getItem(name(test, author)) ?? "null");
  if (kept?.answers?.length === test.examples.length) return kept;
  return { answers: test.examples.map(() => null), kept: false };
}
