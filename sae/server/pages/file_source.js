// Where pages get their data when they are files on a disk or on a static host: from scripts, since a page that was
// opened by double-click may load nothing else. Each calls receiveChunk with its name and its data as JSON.

import { readColumns } from "./server_source.js";

const KEPT_CHUNKS = 12;

export function fileSource() {
  const arrived = new Map(), chunks = new Map();
  globalThis.receiveChunk = (name, text) => arrived.set(name, JSON.parse(text));

  /** Load data/NAME.js once; the oldest card chunks are forgotten. */
  function chunk(name) {
    if (!chunks.has(name)) {
      chunks.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => { resolve(arrived.get(name)); arrived.delete(name); script.remove(); };
        script.onerror = () => { chunks.delete(name); script.remove(); reject(new Error(`data/${name}.js is missing`)); };
        document.head.append(script);
      }));
      const cards = [...chunks.keys()].filter((one) => one.includes("/cards/"));
      if (cards.length > KEPT_CHUNKS) chunks.delete(cards[0]);
    }
    return chunks.get(name);
  }

  async function cardChunk(kind, index) {
    const about = await chunk("about");
    if (!(index < (about.cards[kind] ?? 0))) throw new Error(`no ${kind} ${index}; there are ${about.cards[kind] ?? 0}`);
    const number = Math.floor(index / about.cards_per_chunk);
    return { within: index % about.cards_per_chunk, ...(await chunk(`${kind}/cards/${Math.floor(number / 1000)}/${number}`)) };
  }

  /** Cards that hold every word of the text: by title first, then by explanation, then by words. */
  async function holding(kind, text) {
    const { word_chunks: count } = await chunk("about");
    const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [[], [], []];
    for (let part = 0; terms.length && part < (count[kind] ?? 0); part++) {
      const { first, rows } = await chunk(`${kind}/words/${part}`);
      rows.forEach((fields, i) => {
        const lowered = fields.map((field) => field.toLowerCase()), whole = lowered.join("\n");
        if (!terms.every((term) => whole.includes(term))) return;
        const found_in = lowered.findIndex((field) => field.includes(terms[0]));
        const place = found_in < 0 ? 2 : found_in;
        const start = Math.max(0, lowered[place].indexOf(terms[0]) - 40);
        found[place].push({ index: first + i, title: fields[0], where: ["title", "explanation", "words"][place], snippet: fields[place].slice(start, start + 80) });
      });
    }
    return found.flat();
  }

  const titles = (kind) => chunk(`${kind}/titles`);
  return {
    canWrite: false,
    asks: async () => ({}),
    ask: async () => { throw new Error("Files answer no questions: sae serve CATALOG --live STORE loads the subject."); },
    about: async () => (await chunk("about")).about,
    overview: () => chunk("overview"),
    columns: async (kind) => {
      const { cards, columns } = await chunk("about");
      return cards[kind] && columns.includes(kind) ? readColumns(decode64(await chunk(`${kind}/columns`)).buffer) : {};
    },
    card: async (kind, index) => {
      const { cards, within } = await cardChunk(kind, index);
      return JSON.parse(await inflate(decode64(cards[within])));
    },
    async titles(kind, indices, beside = null) {
      // A card's chunk carries the titles of all cards that it points to.
      const near = beside ? (await cardChunk(beside.kind, beside.index)).titles[kind] ?? {} : {};
      if (indices.every((index) => index in near)) return near;
      const all = await titles(kind);
      return Object.fromEntries(indices.filter((index) => index < all.length).map((index) => [index, all[index]]));
    },
    async matching(kind, text) {
      return (await holding(kind, text)).map((hit) => hit.index).sort((a, b) => a - b);
    },
    async search(kind, text, limit = 200) {
      const all = await holding(kind, text);
      return { total: all.length, found: all.slice(0, limit) };
    },
    explanations: async (kind, index) => (await cardChunk(kind, index)).explanations[index] ?? [],
    findings: () => chunk("lab"),
    finding: (name) => chunk(`lab/${name}`),
    mentions: async (kind, index) => (await cardChunk(kind, index)).mentions[index] ?? [],
    labImage: (name, file) => `lab/${encodeURIComponent(name)}/${encodeURIComponent(file)}.png`,
    image: (name) => (/^images\/\d+\.png$/.test(name) ? name : null),
  };
}

function decode64(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}
