// What pages share that put questions to the loaded subject.

import { fixed, h, short, visible } from "./dom.js";

/** Why nothing can be asked here, and the command that changes it. */
export function drawMissing(source, about, what) {
  const path = /^[\w./-]+$/.test(about.path ?? "") ? about.path : "CATALOG";
  return h("section", { class: "part missing-subject" },
    h("p", null, source.canWrite ? `${what} needs the model itself, and it is not loaded here.` : `${what} needs the model itself. These pages are files, which cannot run it: serve the catalog instead.`),
    h("pre", null, h("code", { translate: "no" }, `sae serve ${path} --live STORE`)),
    h("p", { class: "note" }, "STORE is the activation store that the catalog was made from."));
}

/**
 * Put questions one at a time: while one is being answered only the newest of those that come in is kept, and an answer
 * that has been overtaken is not shown.
 */
export function latest(put, show, fail) {
  let waiting = null, busy = false, asked = 0;
  async function work() {
    busy = true;
    while (waiting) {
      const { question, number } = waiting;
      waiting = null;
      try {
        const answer = await put(question);
        if (number === asked) show(answer, question);
      } catch (error) {
        if (number === asked) fail(error);
      }
    }
    busy = false;
  }
  const ask = (question) => {
    waiting = { question, number: ++asked };
    if (!busy) work();
  };
  const forget = () => { asked += 1; waiting = null; };
  return { ask, forget };
}

/** Call at rest: when nothing has come for a while. */
export function debounced(act, wait) {
  let timer = 0;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => act(...given), wait); };
}

/** Write an address that shows the same again, without drawing the page anew. */
export function keepAddress(path, given) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
  const hash = `${path}${query.size ? `?${query}` : ""}`;
  if (location.hash.startsWith(path)) history.replaceState(null, "", hash);
}

export async function base64Of(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  // A call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** A picture from the base64 of its file; the policy allows no addresses of data, so it is painted. */
export function drawBase64(data, alt) {
  const canvas = h("canvas", { role: "img", "aria-label": alt, width: 1, height: 1 });
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  createImageBitmap(new Blob([bytes])).then((bitmap) => {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
  });
  return canvas;
}

/** A place to drop files on, or to choose them; `take` gets a list of files. */
export function dropZone(label, take, { multiple = false } = {}) {
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/gif,image/bmp,image/tiff", multiple, "aria-label": label });
  const zone = h("label", { class: "drop" }, h("span", null, label), input);
  input.addEventListener("change", () => { if (input.files.length) take([...input.files]); input.value = ""; });
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const files = [...event.dataTransfer.files].slice(0, multiple ? undefined : 1);
    if (files.length) take(files);
  });
  return zone;
}

/** The name of a latent as a link to its card. */
export function latentLink({ index, title }) {
  return h("a", { href: `#/latent/${index}` }, h("span", { class: "index" }, index), " ", h("bdi", null, short(visible(title || "latent"), 60)));
}

/**
 * Latents with bars, one of which may be chosen: [{index, title, value, length, hint}], lengths from 0 to 1.
 *
 * choose(index or null) is called when one is pressed, look(index or null) while one is pointed at.
 */
export function drawChoice(rows, chosen, { choose, look }) {
  return h("ol", { class: "bars choice" }, rows.map((row) => {
    const pressed = row.index === chosen;
    const button = h("button", { type: "button", class: "lamp", "aria-pressed": String(pressed), "aria-label": `shade by latent ${row.index}`, onclick: () => choose(pressed ? null : row.index) });
    return h("li", { "data-hint": row.hint, "data-latent": row.index, onpointerenter: () => look(row.index), onpointerleave: () => look(null) },
      button, h("span", { class: "name" }, latentLink(row)),
      h("span", { class: "length", "aria-hidden": "true" }, h("span", { class: "fill", vars: { "--share": Math.min(1, row.length) } })),
      h("span", { class: "value" }, fixed(row.value)));
  }));
}
