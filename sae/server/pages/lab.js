// The laboratory: what its methods found about this dictionary, and what they say of one card.

import { drawAtlas, waysOf } from "./atlas.js";
import { barList } from "./charts.js";
import { fixed, h, number, plural, short, visible } from "./dom.js";
import { drawRows } from "./rows.js";
import { drawValue, nameUnits, unitLink } from "./units.js";

const FIRST_IMAGES = 24;

/** The page of all findings. */
export async function drawLab({ source, about }) {
  const found = await source.findings();
  const item = (one) => h("li", null, h("a", { class: "finding-link", href: `#/lab/${encodeURIComponent(one.name)}` },
    h("div", { class: "told-of" }, h("p", { class: "kicker" }, h("span", null, visible(one.method)), h("span", { translate: "no" }, visible(one.name))),
      h("p", { class: "says" }, visible(one.verdict)),
      h("p", { class: "note" }, [one.n_rows ? plural(one.n_rows, "row") : null, one.n_images ? plural(one.n_images, "picture") : null].filter(Boolean).join(", "))),
    one.picture ? h("img", { class: "preview", src: source.labImage(one.name, one.picture), alt: "", loading: "lazy", decoding: "async" }) : null),
    one.labelling && source.canWrite ? h("p", { class: "note label-link" }, h("a", { href: `#/label/${encodeURIComponent(one.name)}` }, "label its items blind")) : null);
  const broken = (one) => h("li", null, h("p", { class: "kicker" }, h("span", { translate: "no" }, visible(one.name))), h("p", { class: "problem" }, visible(one.problem)));
  return h("div", { class: "lab" },
    h("header", null, h("h1", null, "The laboratory"), h("p", { class: "note" }, "What its methods found about this dictionary, each beside its controls.")),
    found.length ? h("ol", { class: "findings" }, found.map((one) => (one.problem ? broken(one) : item(one)))) : drawNone(about));
}

function drawNone(about) {
  const path = /^[\w./-]+$/.test(about.path ?? "") ? about.path : "CATALOG";
  return h("section", { class: "part missing-subject" }, h("p", null, "Nothing has been found yet. A method of the laboratory keeps what it finds in this catalog when it is told to:"),
    h("pre", null, h("code", { translate: "no" }, `sae lab levels --dictionary DICTIONARY --store STORE --unit latent:12 --catalog ${path}`)),
    h("p", { class: "note" }, "sae lab --help lists the methods."));
}

/** The page of one finding. */
export async function drawLabFinding({ source, about, name }) {
  const found = await source.finding(name);
  const figures = Object.entries(found.figures ?? {});
  const pictures = Object.entries(found.pictures);
  const ways = waysOf(found), others = found.images.filter((file) => !ways.some((way) => file === `atlas-${way}`));
  const rows = h("section", { class: "part rows-part" }, h("h2", null, "Rows"));
  const page = h("article", { class: "lab one" },
    h("header", null, h("p", { class: "kicker" }, h("a", { href: "#/lab" }, "laboratory"), h("span", null, visible(found.method)), h("span", { translate: "no" }, visible(name)),
      found.labelling && source.canWrite ? h("a", { href: `#/label/${encodeURIComponent(name)}` }, "label its items blind") : null),
      h("h1", { class: found.verdict.length > 140 ? "long" : null }, visible(found.verdict))),
    ways.length && found.rows.length ? drawAtlas({ source, about, found }) : null,
    figures.length ? drawFigures(figures) : null,
    pictures.map(([file, caption]) => h("figure", { class: "part plot" }, enlarging(source.labImage(name, file), caption || file), h("figcaption", { class: "note" }, visible(caption)))),
    others.length ? drawGallery(source, name, others, about.counts) : null,
    found.rows.length ? rows : null,
    drawOrigin(found));
  if (found.rows.length) rows.append(drawRows(found.rows, { source, counts: about.counts }));
  return page;
}

/**
 * Figures of the same measure, as "latent:12, AUC" and "random directions, AUC", beside one another as bars; the others
 * as facts.
 */
function drawFigures(figures) {
  const groups = new Map();
  for (const [name, value] of figures) {
    const [who, ...rest] = name.split(", "), measure = rest.join(", ") || null;
    if (!groups.has(measure)) groups.set(measure, []);
    groups.get(measure).push({ name: who, whole: name, value });
  }
  const alone = [...groups].flatMap(([measure, rows]) => (measure === null || rows.length === 1 ? rows : []));
  const together = [...groups].filter(([measure, rows]) => measure !== null && rows.length > 1);
  const known = (value) => (value === null || value === undefined ? "–" : number(value));
  return h("section", { class: "part figures" },
    alone.length ? h("dl", { class: "facts" }, alone.map(({ whole, value }) => h("div", null, h("dt", null, visible(whole).replaceAll("_", " ")), h("dd", null, known(value))))) : null,
    together.length ? h("div", { class: "beside" }, together.map(([measure, rows]) => h("div", { class: "small" }, h("h3", null, visible(measure).replaceAll("_", " ")),
      barList(rows.map(({ name, value }) => ({ name: visible(name).replaceAll("_", " "), value: value ?? 0, hint: visible(name) })), { format: fixed })))) : null);
}

/** A picture that a press opens as large as the window. */
function enlarging(address, alt) {
  return h("button", { type: "button", class: "enlarge", "aria-label": "open large", onclick: () => {
    const dialog = h("dialog", { class: "large" }, h("img", { src: address, alt }));
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  } }, h("img", { src: address, alt, loading: "lazy", decoding: "async" }));
}

function drawGallery(source, name, files, counts) {
  const draw = (file) => {
    const unit = /^(latent|neuron)-(\d{1,12})(?!\d)[-_. ]*(.*)$/.exec(file);
    const known = unit && Number(unit[2]) < (counts[`${unit[1]}s`] ?? 0);
    return h("li", null, h("figure", { class: "frame" }, enlarging(source.labImage(name, file), file),
      h("figcaption", null, known ? [unitLink({ kind: unit[1], index: Number(unit[2]) }, `${unit[1]} ${unit[2]}`), h("span", { class: "told" }, visible(unit[3] || " "))] : h("span", { class: "told" }, visible(file)))));
  };
  const list = h("ul", { class: "gallery" }, files.slice(0, FIRST_IMAGES).map(draw));
  const rest = files.slice(FIRST_IMAGES);
  const more = rest.length ? h("button", { class: "more", type: "button", onclick: () => { list.append(...rest.map(draw)); more.remove(); nameUnits(source, list); } }, `${number(rest.length)} more`) : null;
  nameUnits(source, list);
  return h("section", { class: "part" }, h("h2", null, "Images"), list, more);
}

/** How it was found: settings and hashes. */
function drawOrigin(found) {
  const settings = Object.entries(found.settings ?? {}).filter(([, value]) => value !== null);
  const hashes = ["dictionary", "store"].map((name) => [`${name}, sha256`, found.about?.[name]?.sha256]).filter(([, value]) => value);
  const told = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  return h("details", null, h("summary", null, "How it was found"),
    h("dl", { class: "settings-of" }, [...settings, ...hashes].map(([name, value]) => h("div", null, h("dt", null, visible(name)), h("dd", { translate: "no" }, visible(told(value)))))));
}

/** What findings say of a card; arrives after it, and shows nothing where they say nothing. */
export function drawMentions(source, about, kind, index) {
  const section = h("section", { class: "part mentions", hidden: true });
  source.mentions(kind, index).then((said) => {
    if (!said.length) return;
    section.append(h("h2", null, "In the laboratory"), h("ol", null, said.map((one) => drawMention(source, about, one, { kind, index }))));
    section.hidden = false;
    nameUnits(source, section);
  }, () => section.remove());
  return section;
}

function drawMention(source, about, one, unit) {
  const address = `#/lab/${encodeURIComponent(one.name)}`;
  const own = (column, value) => column === unit.kind || value === `${unit.kind}:${unit.index}` || value === `${unit.kind} ${unit.index}`;
  return h("li", null,
    h("p", { class: "kicker" }, h("a", { href: address }, visible(one.method)), h("span", { translate: "no" }, visible(one.name))),
    one.whole ? h("p", { class: "says" }, visible(one.verdict)) : null,
    one.picture || one.images.length ? h("div", { class: "shown-of" }, [one.picture, ...one.images].filter(Boolean).map((file) => enlarging(source.labImage(one.name, file), `${one.method}: ${file}`))) : null,
    one.rows.map((row) => h("p", { class: "row-of note" }, Object.entries(row).filter(([column, value]) => !own(column, value) && value !== "" && value !== null).map(([column, value]) =>
      h("span", { class: "pair" }, h("span", { class: "of" }, short(visible(column).replaceAll("_", " "), 40)), " ", h("span", { class: "is" }, drawValue(column, value, about.counts)))))),
    !one.whole && one.n_rows > one.rows.length ? h("p", { class: "note" }, h("a", { href: address }, `${number(one.n_rows - one.rows.length)} more rows`)) : null);
}
