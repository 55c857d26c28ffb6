// A picture, and the latents that fire on it; the chosen one shows where.

import { drawVeil } from "./examples.js";
import { fixed, h, plural, share } from "./dom.js";
import { base64Of, drawBase64, drawChoice, dropZone, latest } from "./live.js";

const SHOWN = 24;

export function pictureQuestion({ source, ask }) {
  const state = { answer: null, latent: null, looked: null };
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const told = h("p", { class: "note", "aria-live": "polite" });
  const frame = h("div", { class: "picture" });
  const list = h("div");
  const stage = h("div", { class: "pictured", hidden: true }, h("div", null, frame, told), list);
  const tell = (error) => { problem.textContent = error?.message ?? ""; problem.hidden = !error; };
  const questions = latest((question) => source.ask("image", question), (answer) => { tell(null); take(answer); }, (error) => { stage.hidden = true; tell(error); });
  const zone = dropZone("Drop a picture here, or choose one", async ([file]) => questions.ask({ image: await base64Of(file) }));

  function take(answer) {
    Object.assign(state, { answer, latent: answer.latents[0]?.index ?? null, looked: null });
    stage.hidden = false;
    frame.replaceChildren(drawBase64(answer.frame, "the picture as the model sees it"));
    paint();
    drawList();
  }

  function paint() {
    const { answer } = state, index = state.looked ?? state.latent;
    const latent = answer.latents.find((one) => one.index === index);
    frame.querySelector(".veil")?.remove();
    if (latent && answer.grid) frame.append(drawVeil({ grid: answer.grid, values: latent.values }) ?? "");
    const where = answer.grid ? (latent ? `Lit where latent ${latent.index} fires, over ${answer.grid[0]} by ${answer.grid[1]} patches.` : "") : "One vector stands for the whole picture, so there is no map.";
    told.textContent = `${plural(answer.n_fired, "latent")} fire${answer.n_fired === 1 ? "s" : ""}. ${where}`;
  }

  function choose(index) {
    state.latent = index;
    state.looked = null;
    paint();
    drawList();
  }

  function drawList() {
    const rows = state.answer.latents.slice(0, SHOWN).map((one) => ({ ...one, length: one.share ?? 0, hint: `activation ${fixed(one.value)}, ${share(one.share)} of its maximum` }));
    list.replaceChildren(rows.length ? h("p", { class: "note" }, "Bars: share of what the latent reaches in the catalog; numbers: activation.") : h("p", { class: "note" }, "No latent fires on it."),
      drawChoice(rows, state.latent, { choose, look: (index) => { state.looked = index; paint(); } }));
  }

  return h("div", { class: "part" }, zone, h("p", { class: "note" }, `${ask.formats.join(", ")}; it stays on this machine.`), problem, stage);
}
