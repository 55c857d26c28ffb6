// Where pages get their data when a server is there. The other source, with the same functions, is file_source.js.

const KEPT_CARDS = 24;

export function serverSource() {
  const once = new Map(), cards = new Map();
  const remember = (name, load) => {
    if (!once.has(name)) once.set(name, load().catch((error) => { once.delete(name); throw error; }));
    return once.get(name);
  };
  const path = (...parts) => parts.map(encodeURIComponent).join("/");
  return {
    canWrite: true,
    about: () => remember("about", () => getJson("api/about")),
    overview: () => remember("overview", () => getJson("api/overview")),
    columns: (kind) => remember(`columns ${kind}`, async () => {
      const response = await fetch(`api/columns/${path(kind)}`);
      if (response.status === 404) return {};
      return readColumns(await (await checked(response)).arrayBuffer());
    }),
    card(kind, index) {
      const name = path("api", "card", kind, index);
      if (!cards.has(name)) {
        cards.set(name, getJson(name).catch((error) => { cards.delete(name); throw error; }));
        if (cards.size > KEPT_CARDS) cards.delete(cards.keys().next().value);
      }
      return cards.get(name);
    },
    titles: async (kind, indices) => (indices.length ? getJson(`api/titles/${path(kind)}?index=${indices.join(",")}`) : {}),
    search: (kind, text, limit = 200) => getJson(`api/search/${path(kind)}?q=${encodeURIComponent(text)}&limit=${limit}`),
    matching: async (kind, text) => (await getJson(`api/matching/${path(kind)}?q=${encodeURIComponent(text)}`)).indices,
    asks: () => remember("asks", () => getJson("api/live")),
    ask: (name, question) => postJson(path("api", "live", name), question),
    explanations: (kind, index) => getJson(path("api", "explanations", kind, index)),
    explain: (kind, index, act) => postJson(path("api", "explanations", kind, index), act),
    findings: () => getJson("api/lab"),
    finding: (name) => getJson(path("api", "lab", name)),
    mentions: (kind, index) => getJson(path("api", "mentions", kind, index)),
    labImage: (name, file) => path("lab", name, `${file}.png`),
    labelling: (name, rater) => getJson(`${path("api", "label", name)}?rater=${encodeURIComponent(rater)}`),
    label: (name, said) => postJson(path("api", "label", name), said),
    item: (name, slot) => path("lab", name, "items", `${String(slot).padStart(6, "0")}.png`),
    image: (name) => (/^images\/\d+\.png$/.test(name) ? name : null),
  };
}

async function getJson(address) {
  return (await checked(await fetch(address))).json();
}

async function postJson(address, data) {
  const response = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(data) });
  return (await checked(response)).json();
}

async function checked(response) {
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Error(told.error ?? `the server answered ${response.status}`);
}

/** Read the float32 tensors of a safetensors file: a length, a JSON header, and the numbers. */
export function readColumns(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const columns = {};
  for (const [name, one] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (one.dtype !== "F32") throw new Error(`column ${name}: ${one.dtype}, not F32`);
    columns[name] = new Float32Array(buffer.slice(8 + length + one.data_offsets[0], 8 + length + one.data_offsets[1]));
  }
  return columns;
}
