// A latent's circuit: what drives it on the left, what it does on the right, and how far ablations bear the edges out.

import { fixed, h, number, plural, short, svg, visible } from "./dom.js";

const THINNEST = 1.5, THICKEST = 8;
const SIDES = [["upstream"], ["centre"], ["downstream", "output"]];
const COMMAND = "sae serve CATALOG --live STORE --with DICTIONARY";
const HEADS = ["", "what it fires on, or is", "attribution", "ablation", "control", "confirmed"];

/** The page of one latent's circuit; it comes at once and fills when the subject has answered. */
export async function drawCircuit({ source, about, kind, index }) {
  const [card, asks] = await Promise.all([source.card(kind, index), source.asks()]);
  const body = h("div", { class: "circuit-body" });
  const page = h("article", { class: "circuit card" }, h("header", null,
    h("p", { class: "kicker" }, h("span", null, `circuit of ${kind} ${number(index)}`), h("span", { class: "tools" }, h("a", { href: `#/${kind}/${index}` }, "its card"))),
    h("h1", { translate: "no" }, h("bdi", null, short(visible(card.title), 160)))), body);
  if (kind !== "latent" || !asks.circuit) {
    body.append(h("p", { class: "missing-subject" }, kind === "latent" ? ["A circuit needs the subject, which is not loaded. ", h("code", null, COMMAND), " loads it, with dictionaries at its other hookpoints."] : "Only latents have circuits."));
  } else {
    fillCircuit(body, { source, about: asks.circuit, index });
  }
  return page;
}

async function fillCircuit(body, { source, about, index }) {
  const clock = h("span", { "aria-hidden": "true" }), started = performance.now();
  body.setAttribute("aria-busy", "true");
  body.replaceChildren(h("p", { class: "waiting", role: "status" }, "The subject runs on examples of this latent, with and without each latent that could matter. ", clock));
  const tick = setInterval(() => { clock.textContent = `${Math.round((performance.now() - started) / 1000)} s`; }, 1000);
  try {
    const circuit = await source.ask("circuit", { latent: index });
    body.replaceChildren(...drawFound(circuit, about));
  } catch (error) {
    body.replaceChildren(h("p", { class: "problem", role: "alert" }, visible(error.message)));
  } finally {
    clearInterval(tick);
    body.removeAttribute("aria-busy");
  }
}

function drawFound(circuit, about) {
  return [drawFacts(circuit), drawGraph(circuit, about), drawNotes(about), drawTable(circuit)];
}

function drawFacts({ n_firings, n_examples, activation, edges, agreement, seconds }) {
  const rows = Object.values(agreement), drawn = rows.reduce((sum, row) => sum + row.edges, 0), borne = rows.reduce((sum, row) => sum + row.confirmed, 0);
  const correlations = Object.entries(agreement).filter(([, row]) => row.correlation !== null).map(([layer, row]) => `${layer} ${fixed(row.correlation)}`);
  const facts = [["firings looked at", `${number(n_firings)} in ${plural(n_examples, "example")}`], ["mean when on", number(activation)], ["edges confirmed", `${borne} of ${drawn}`], ["took", `${number(seconds)} s`]];
  return h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", { "data-hint": name === "edges confirmed" && edges.length ? `correlation of attribution with ablation:\n${correlations.join("\n")}` : null }, h("dt", null, name), h("dd", null, value))));
}

/** The graph: nodes are elements in three columns, edges curves behind them that follow when the columns move. */
function drawGraph(circuit, about) {
  const drawn = new Map(), told = h("p", { class: "readout", "aria-live": "polite" }, "Point at a latent or an edge, or walk with Tab, for its numbers.");
  const nodes = new Map(circuit.nodes.map((node) => [node.id, node])), most = largest(circuit.edges, nodes);
  const lines = svg("svg", { class: "edges", "aria-hidden": "true" });
  const frame = h("div", { class: "graph" }, lines, SIDES.map((layers) => h("div", { class: `side-of ${layers[0]}` }, layers.map((layer) => drawLayer(layer)))));

  function drawLayer(layer) {
    const groups = Map.groupBy(circuit.nodes.filter((node) => node.layer === layer), (node) => node.dictionary ?? node.hookpoint);
    if (!groups.size) return layer === "upstream" ? h("p", { class: "note" }, about.upstream.length ? "No latent of an earlier dictionary drives it." : "No dictionary at an earlier hookpoint is loaded.") : null;
    return [...groups.values()].map((group) => h("section", null, layer === "centre" ? null : h("h2", { title: visible(group[0].dictionary ?? "") || null }, visible(group[0].hookpoint)),
      h("ul", null, group.map((node) => {
        const edge = circuit.edges.find((one) => one.source === node.id || one.target === node.id), alone = layer !== "centre";
        const item = h("li", { class: `node ${alone ? classOf(edge) : "middle"}`, tabindex: alone ? 0 : null, vars: alone ? { "--size": `${thickness(edge, most)}px` } : null, "aria-label": alone ? tell(edge, node) : null }, nameOf(node));
        drawn.set(node.id, item);
        if (alone) watch(item, edge, { focus: true });
        return item;
      }))));
  }

  /** Chromium lets the keyboard stop at a curve that listens to focus; nodes are enough. */
  function watch(element, edge, { focus }) {
    const on = () => mark(edge), off = () => mark(null);
    for (const [event, act] of [["pointerenter", on], ["pointerleave", off], ...(focus ? [["focus", on], ["blur", off]] : [])]) element.addEventListener(event, act);
  }

  function mark(edge) {
    frame.classList.toggle("chosen", Boolean(edge));
    for (const path of lines.children) path.classList.toggle("lit", path.dataset.ends === (edge && endsOf(edge)));
    for (const [id, item] of drawn) item.classList.toggle("lit", Boolean(edge) && (id === edge.source || id === edge.target));
    if (edge) told.textContent = tell(edge, nodes.get(nodes.get(edge.source).layer === "centre" ? edge.target : edge.source));
  }

  function layOut() {
    const box = frame.getBoundingClientRect(), ordered = new Map();
    lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    for (const edge of circuit.edges) for (const [end, id] of [["from", edge.source], ["to", edge.target]]) ordered.set(`${end} ${id}`, [...(ordered.get(`${end} ${id}`) ?? []), edge]);
    const at = (end, id, edge) => {
      const place = drawn.get(id).getBoundingClientRect(), beside = ordered.get(`${end} ${id}`);
      const share = (beside.indexOf(edge) + 1) / (beside.length + 1);
      return { x: (end === "from" ? place.right : place.left) - box.left, y: place.top - box.top + place.height * share };
    };
    lines.replaceChildren(...circuit.edges.flatMap((edge) => {
      const a = at("from", edge.source, edge), b = at("to", edge.target, edge), bend = (b.x - a.x) * 0.5;
      const d = `M${a.x} ${a.y}C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}`;
      const hit = svg("path", { class: "hit", d, "data-ends": endsOf(edge) });
      watch(hit, edge, { focus: false });
      return [svg("path", { class: `edge ${classOf(edge)}`, d, "stroke-width": thickness(edge, most), "data-ends": endsOf(edge) }), hit];
    }));
  }

  new ResizeObserver(layOut).observe(frame);
  return h("section", { class: "part" }, frame, told);
}

const endsOf = (edge) => JSON.stringify([edge.source, edge.target]);
const classOf = (edge) => `${edge.attribution < 0 ? "negative" : "positive"} ${edge.confirmed ? "borne-out" : "doubtful"}`;

/** The largest attribution among the edges that share a unit: upstream all, downstream those into one dictionary. */
function largest(edges, nodes) {
  const most = {};
  for (const edge of edges) most[unitOf(edge)] = Math.max(most[unitOf(edge)] ?? 0, Math.abs(edge.attribution));
  return { of: (edge) => most[unitOf(edge)] || 1 };
  function unitOf(edge) {
    const { layer, dictionary } = nodes.get(edge.target);
    return `${layer} ${dictionary}`;
  }
}

function thickness(edge, most) {
  return THINNEST + (THICKEST - THINNEST) * (Math.abs(edge.attribution) / most.of(edge));
}

/** A token with its spaces counted where there are many. */
function spelled(token) {
  return visible(token).replace(/ {2,}/g, (spaces) => `␣${spaces.length}`);
}

/** What a node is called: its title, or what it fires on, and what it writes. */
function nameOf(node) {
  const texts = (words) => words.map((word) => h("code", null, short(spelled(word), 24)));
  const name = node.title === null ? texts(node.fires_on) : node.layer === "output" ? texts([node.title]) : short(visible(node.title), 60);
  return [h("span", { class: "called", translate: "no" }, node.title === null && !node.fires_on.length ? "fires on nothing sampled" : name),
    node.layer === "output" ? null : h("span", { class: "more-of" }, h("span", { class: "index" }, number(node.latent)), node.writes.length ? [" writes ", texts(node.writes)] : null)];
}

function tell(edge, node) {
  const name = node.title ?? node.fires_on.map(spelled).join(" "), activation = edge.activation === null ? "" : ` (activation ${fixed(edge.activation)})`;
  const who = node.latent === null ? "" : `latent ${node.latent}, `;
  return `${who}${short(visible(name), 80)}: attribution ${fixed(edge.attribution)}, ablation ${fixed(edge.ablation)}${activation}, control ${fixed(edge.control)}; ${edge.confirmed ? "confirmed" : "not confirmed"}.`;
}

function drawNotes(about) {
  const sample = (classes, text) => h("span", { class: "sample" }, svg("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" }, svg("path", { class: `edge ${classes}`, d: "M1 5H33", "stroke-width": 4 })), text);
  return h("div", { class: "legend" }, sample("positive borne-out", "raises"), sample("negative borne-out", "lowers"), sample("positive doubtful", "not confirmed by ablation"),
    h("p", { class: "note" }, "Width: first-order effect per firing, each group on its own scale. An edge stands for every path through the subject between its ends. It is confirmed if taking the source out has the same sign, at least half of the size, and more effect than 95 % of comparable latents taken out for control.",
      about.upstream.length || about.downstream.length ? null : " Dictionaries at other hookpoints would add latents before and after this one: --with loads them."));
}

function drawTable(circuit) {
  const nodes = new Map(circuit.nodes.map((node) => [node.id, node]));
  const body = circuit.edges.map((edge) => {
    const node = nodes.get(nodes.get(edge.source).layer === "centre" ? edge.target : edge.source);
    const name = node.title === null ? node.fires_on.map(spelled).join("  ") : node.title;
    return h("tr", null, h("th", { scope: "row" }, node.layer, node.latent === null ? null : [" ", h("span", { class: "index", title: visible(node.dictionary) }, number(node.latent))]),
      h("td", null, h("bdi", null, short(visible(name), 80))), [edge.attribution, edge.ablation, edge.control].map((value) => h("td", { class: "number" }, fixed(value))), h("td", { class: "verdict" }, edge.confirmed ? "confirmed" : "no"));
  });
  return h("section", { class: "part" }, h("h2", null, "The same as a table"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "edges as a table" }, h("table", null, h("thead", null, h("tr", null, HEADS.map((name, i) => h("th", { scope: "col", class: i > 1 && i < 5 ? "number" : null }, name)))), h("tbody", null, body))));
}
