// Dose and response: probabilities over doses, the range of random latents behind them, and where the dose stands now.

import { fixed, h, number, svg, visible } from "./dom.js";

const WIDTH = 560, HEIGHT = 240, LEFT = 40, RIGHT = 10, TOP = 10, BASE = 212;

/** Draw a curve {strengths, lines, control, kl}; the returned `mark(dose)` moves the line of the present dose. */
export function drawCurve({ strengths, lines, control, kl }) {
  const low = strengths[0], high = strengths.at(-1);
  const most = Math.max(0.05, ...lines.flatMap((one) => one.values), ...(control?.high ?? []));
  const top = most > 0.5 ? 1 : most * 1.1;
  const x = (dose) => LEFT + ((dose - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => BASE - (value / top) * (BASE - TOP);
  const points = (values) => values.map((value, i) => `${x(strengths[i]).toFixed(1)},${y(value).toFixed(1)}`);
  const band = control && svg("polygon", { class: "curve-band", points: [...points(control.high), ...points(control.low).reverse()].join(" ") });
  const drawn = lines.map((one, n) => svg("polyline", { class: `curve-line line-${n}`, points: points(one.values).join(" ") }));
  const dots = lines.map((one, n) => one.values.map((value, i) => svg("circle", { class: `curve-dot line-${n}`, cx: x(strengths[i]), cy: y(value), r: 3,
    "data-hint": `${visible(one.name)}\ndose ${number(strengths[i])}: ${fixed(value)}\ncost ${fixed(kl[i])} nats${n || !control ? "" : `\nrandom latents ${fixed(control.low[i])} to ${fixed(control.high[i])}`}` })));
  const now = svg("line", { class: "curve-now", x1: 0, x2: 0, y1: TOP, y2: BASE });
  const text = (value, at, anchor, kind = "") => svg("text", { class: `curve-text ${kind}`, x: at[0], y: at[1], "text-anchor": anchor }, value);
  const ticks = strengths.filter((_, i) => i % 2 === 0).map((dose) => text(number(dose), [x(dose), BASE + 16], "middle"));
  const levels = [0, top / 2, top].map((value) => [svg("line", { class: "curve-rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }), text(number(value, 2), [LEFT - 6, y(value) + 4], "end")]);
  const element = h("figure", { class: "curve" },
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `probability of ${lines.map((one) => visible(one.name)).join(" and of ")} by dose` }, levels, ticks, band, now, drawn, dots),
    h("figcaption", { class: "legend" }, lines.map((one, n) => h("span", { class: "sample" }, svg("svg", { viewBox: "0 0 34 10" }, svg("line", { class: `curve-line line-${n}`, x1: 0, x2: 34, y1: 5, y2: 5 })), h("bdi", { translate: "no" }, visible(one.name)))),
      control ? h("span", { class: "sample" }, svg("svg", { viewBox: "0 0 34 10" }, svg("rect", { class: "curve-band", x: 0, y: 0, width: 34, height: 10 })), `${visible(lines[0].name)} under ${number(control.n)} random latents`) : null));
  const mark = (dose) => { for (const end of ["x1", "x2"]) now.setAttribute(end, x(Math.min(high, Math.max(low, dose)))); };
  return { element, mark };
}
