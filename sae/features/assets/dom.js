// Elements, text and numbers. Text from data only ever becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; children that are null or false are left out, strings and numbers become text. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A number as a reader wants it: three digits that mean something, a true minus sign. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return sign(value.toLocaleString("en-US"));
  if (size >= 1e6 || size < 1e-4) return sign(value.toExponential(digits - 1)).replace("e-", "e−").replace("e+", "e");
  if (size >= 1000) return sign(Math.round(value).toLocaleString("en-US"));
  return sign(String(Number(value.toPrecision(digits))));
}

/** The same with its zeros kept, so that numbers under one another line up. */
export function fixed(value) {
  const size = Math.abs(value ?? NaN);
  return size >= 0.001 && size < 1000 && !Number.isInteger(value) ? sign(value.toPrecision(3)) : number(value);
}

function sign(text) {
  return text.replace(/^-/, "−");
}

/** A share, as percent where that reads well, else as one in so many. */
export function share(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "never";
  if (value < 0.0005) return `1 in ${Math.round(1 / value).toLocaleString("en-US")}`;
  return `${number(value * 100)} %`;
}

export function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

const NAMED = { "\n": "↵", "\r": "␍", "\t": "⇥" };
// Controls, marks of direction and other characters without a picture: they show by their number, and change nothing.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text in which every character can be seen. */
export function visible(text) {
  if (text === "") return "∅";
  if (text === "\u200d") return "‹200D›";
  return text.replace(UNSEEN, (one) => NAMED[one] ?? `‹${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
}

/** Long text, cut in the middle of nothing: whole characters, and how many are left out. */
export function cut(text, most) {
  if (text.length <= most) return text;
  const kept = Array.from(text.slice(0, most + 1)).slice(0, -1).join("");
  return `${kept}… +${number(text.length - kept.length)}`;
}

/** A title or a caption, cut with nothing but an ellipsis. */
export function short(text, most) {
  return text.length <= most ? text : `${Array.from(text.slice(0, most)).slice(0, -1).join("").trimEnd()}…`;
}

/** Hints: one box for the page, which follows the pointer over anything with data-hint. */
export function installHints(root) {
  const box = h("div", { class: "hint", "aria-hidden": "true", hidden: true });
  root.ownerDocument.body.append(box);
  const show = (event) => {
    const target = event.target.closest?.("[data-hint]");
    box.hidden = !target;
    if (!target) return;
    box.textContent = target.dataset.hint;
    const { clientWidth, clientHeight } = root.ownerDocument.documentElement;
    const x = Math.min(event.clientX + 12, clientWidth - box.offsetWidth - 8);
    const y = event.clientY + 18 + box.offsetHeight > clientHeight ? event.clientY - box.offsetHeight - 10 : event.clientY + 18;
    box.style.setProperty("transform", `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`);
  };
  root.addEventListener("pointermove", show);
  root.addEventListener("pointerleave", () => (box.hidden = true));
  root.ownerDocument.addEventListener("scroll", () => (box.hidden = true), { passive: true, capture: true });
}
