// One of the two sets of a contrast: texts line by line, pictures, or examples of the inputs by their label.

import { h, number, plural, visible } from "./dom.js";
import { base64Of, dropZone } from "./live.js";

/**
 * An editor of one set. `initial` is {texts?, label?} from the address.
 *
 * read() gives the set as a question holds it, or null where there is nothing yet; address() what the address keeps.
 */
export function setEditor(name, ask, initial) {
  const families = Object.keys(ask.labels);
  const brings = ask.takes === "images" ? picturesEditor(name, ask) : textsEditor(name, ask, initial.texts);
  const label = families.length ? labelEditor(name, ask, initial.label) : null;
  let now = label && initial.label ? label : brings;
  const holder = h("div", null, now.element);
  const tab = (editor, title) => h("button", { type: "button", class: "link", "aria-pressed": String(editor === now), onclick: (event) => {
    now = editor;
    holder.replaceChildren(now.element);
    for (const one of event.currentTarget.parentNode.children) one.setAttribute("aria-pressed", String(one === event.currentTarget));
  } }, title);
  const element = h("section", { class: `set set-${name.toLowerCase()}`, "aria-label": `set ${name}` },
    h("h2", null, name, label && h("span", { class: "note orders" }, tab(brings, ask.takes === "images" ? "pictures" : "texts"), tab(label, "by label"))), holder);
  return { element, read: () => now.read(), address: () => now.address() };
}

function textsEditor(name, ask, texts) {
  const area = h("textarea", { rows: 7, "aria-label": `texts of set ${name}`, placeholder: "one text per line", spellcheck: "false", autocomplete: "off" });
  area.value = texts ?? "";
  const count = h("p", { class: "note" });
  const lines = () => area.value.split("\n").filter((line) => line.trim());
  const tell = () => { count.textContent = `${plural(lines().length, "text")}, at most ${number(ask.most_examples)}`; };
  area.addEventListener("input", tell);
  tell();
  return { element: h("div", null, area, count), read: () => (lines().length ? { texts: lines() } : null), address: () => ({ texts: area.value }) };
}

function picturesEditor(name, ask) {
  const files = [];
  const count = h("p", { class: "note" });
  const shown = h("ul", { class: "thumbs" });
  const tell = () => {
    const clear = h("button", { type: "button", class: "link", onclick: () => { files.length = 0; shown.replaceChildren(); tell(); } }, "clear");
    count.replaceChildren(`${plural(files.length, "picture")}, at most ${number(ask.most_examples)}`, ...(files.length ? [" · ", clear] : []));
  };
  const take = async (some) => {
    for (const file of some) {
      files.push(await base64Of(file));
      const canvas = h("canvas", { width: 40, height: 40, role: "img", "aria-label": file.name });
      // What cannot be painted here is refused, with its reason, by whoever reads it.
      createImageBitmap(file).then((bitmap) => canvas.getContext("2d").drawImage(bitmap, 0, 0, 40, 40), () => canvas.classList.add("unread"));
      shown.append(h("li", null, canvas));
      tell();
    }
  };
  tell();
  return { element: h("div", null, dropZone(`Drop pictures of set ${name} here, or choose them`, take, { multiple: true }), shown, count), read: () => (files.length ? { images: files } : null), address: () => ({}) };
}

function labelEditor(name, ask, initial) {
  const match = /^([^=]*?)(!?)=(.*)$/s.exec(initial ?? "");
  const families = Object.keys(ask.labels);
  const option = (value) => h("option", { value }, visible(value));
  const family = h("select", { "aria-label": `family of set ${name}` }, families.map(option));
  const is = h("select", { "aria-label": `is or is not, set ${name}` }, h("option", { value: "=" }, "is"), h("option", { value: "!=" }, "is not"));
  const value = h("select", { "aria-label": `value of set ${name}` });
  const fill = () => value.replaceChildren(...ask.labels[family.value].map(option));
  if (match && families.includes(match[1])) family.value = match[1];
  fill();
  if (match?.[2]) is.value = "!=";
  if (match && ask.labels[family.value].includes(match[3])) value.value = match[3];
  family.addEventListener("change", fill);
  const read = () => ({ label: `${family.value}${is.value}${value.value}` });
  return { element: h("div", { class: "by-label" }, family, is, value, h("p", { class: "note" }, "examples of the catalog's inputs, drawn at random")), read, address: read };
}
