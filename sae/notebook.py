"""What an object shows of itself in a notebook: one element that needs nothing else, in light and in dark.

Every text is escaped here, so callers hand over plain text and what other functions of this module returned.
"""

import html
import math
from collections.abc import Iterable, Sequence

STYLE = """
.sae-panel { color-scheme: light dark; --paper: light-dark(#ffffff, #15171b); --ink: light-dark(#1d1e20, #e9e7e2);
  --soft: light-dark(#5d6167, #a2a6ad); --rule: light-dark(#e3e3e0, #2e3238); --edge: light-dark(#85888d, #777c84);
  --bar: light-dark(#e08a1e, #d98b2b); --quiet: light-dark(#b9bcc0, #565b63);
  max-width: 760px; padding: 18px 22px 20px; border: 1px solid var(--rule); border-radius: 5px;
  min-width: 0; box-sizing: border-box; background: var(--paper); color: var(--ink);
  font: 14px/1.45 -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif; }
body[data-jp-theme-light="true"] .sae-panel, body.vscode-light .sae-panel { color-scheme: light; }
body[data-jp-theme-light="false"] .sae-panel, body.vscode-dark .sae-panel { color-scheme: dark; }
.sae-panel .sae-kicker, .sae-panel .sae-note { color: var(--soft); font-size: 13px; margin: 0; }
.sae-panel .sae-title { font-size: 20px; line-height: 1.25; font-weight: 650; margin: 2px 0 12px; color: inherit;
  overflow-wrap: anywhere; letter-spacing: -0.01em; }
.sae-panel .sae-facts { display: flex; flex-wrap: wrap; gap: 10px 28px; margin: 0 0 4px; }
.sae-panel .sae-facts + .sae-note { margin-top: 10px; }
.sae-panel .sae-facts dt { color: var(--soft); font-size: 12.5px; font-weight: 400; margin: 0; }
.sae-panel .sae-facts dd { margin: 0; font-size: 16px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.sae-panel figure { margin: 16px 0 0; max-width: 340px; }
.sae-panel figure svg { display: block; width: 100%; height: 64px; }
.sae-panel .sae-ends { display: flex; justify-content: space-between; font-size: 12px; color: var(--soft); }
.sae-panel figcaption { font-size: 13px; color: var(--soft); }
.sae-panel pre { margin: 16px 0 0; padding: 8px 12px; background: color-mix(in srgb, var(--ink) 5%, transparent);
  border-radius: 3px; white-space: pre-wrap; overflow-wrap: anywhere; color: inherit;
  font: 12.5px/1.5 ui-monospace, "SF Mono", "Cascadia Mono", "Noto Sans Mono", "DejaVu Sans Mono", monospace; }
.sae-panel .sae-scroll { overflow-x: auto; margin-top: 12px; }
.sae-panel table { border-collapse: collapse; font-size: 13.5px; margin: 0; width: 100%; color: inherit; }
.sae-panel table :is(th, td) { text-align: left; font-weight: 400; padding: 4px 14px 4px 0; border: 0;
  border-top: 1px solid var(--rule); background: none; white-space: nowrap; }
.sae-panel table thead th { color: var(--soft); font-size: 12.5px; border-top: 0; }
.sae-panel table .sae-number { text-align: right; font-variant-numeric: tabular-nums; }
.sae-panel table svg { display: block; width: 150px; height: 18px; }
.sae-panel .sae-better { color: light-dark(#2c6e43, #7fc795); }
.sae-panel .sae-worse { color: light-dark(#9c4a12, #e8a06d); }
.sae-panel .sae-bar { fill: var(--bar); }
.sae-panel .sae-band { fill: var(--quiet); opacity: 0.6; }
.sae-panel .sae-line { stroke: var(--edge); stroke-width: 1; vector-effect: non-scaling-stroke; }
.sae-panel .sae-tick { stroke: var(--edge); stroke-width: 2; }
.sae-panel details { margin-top: 10px; }
.sae-panel summary { cursor: pointer; color: var(--soft); font-size: 13px; }
"""


class Html(str):
    """Markup made by this module; any other text is escaped."""

    __slots__ = ()


def panel(kicker: str, title: str, *parts: str) -> str:
    """Return the whole element.

    Args:
        kicker: what kind of thing it is, in a word or two.
        title: what it is called.
        parts: made by the functions below; empty ones are left out.
    """
    inner = "".join(part for part in map(escaped, parts) if part)
    heading = f'<p class="sae-kicker">{escaped(kicker)}</p><p class="sae-title">{escaped(title)}</p>'
    return f'<div class="sae-panel"><style>{STYLE}</style>{heading}{inner}</div>'


def escaped(text: str) -> Html:
    """Return text as markup that shows it."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Return names above values, side by side."""
    found = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs)
    return Html(f'<dl class="sae-facts">{found}</dl>' if found else "")


def note(text: str) -> Html:
    """Return a line of small print."""
    return Html(f'<p class="sae-note">{escaped(text)}</p>')


def code(text: str) -> Html:
    """Return lines to copy."""
    return Html(f"<pre>{escaped(text)}</pre>")


def histogram(edges: Sequence[float], counts: Sequence[int], label: str, ends: tuple[str, str] | None = None) -> Html:
    """Return bars between edges of equal width, with what they count as caption.

    Args:
        edges: one more than counts.
        counts: how many lie between.
        label: the caption.
        ends: what to write below the first and the last edge.
    """
    width, height, each = 340.0, 64.0, 340.0 / max(len(counts), 1)
    top = max(counts, default=0) or 1
    bars = "".join(
        f'<rect class="sae-bar" x="{i * each + 0.4:.2f}" y="{height - count / top * (height - 3):.2f}" '
        f'width="{each - 0.8:.2f}" height="{count / top * (height - 3):.2f}"/>'
        for i, count in enumerate(counts)
        if count
    )
    axis = f'<line class="sae-line" x1="0" x2="{width}" y1="{height - 0.5}" y2="{height - 0.5}"/>'
    low, high = ends or (number(edges[0]), number(edges[-1]))
    drawing = (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{escaped(label)}">'
    )
    below = f'<div class="sae-ends"><span>{escaped(low)}</span><span>{escaped(high)}</span></div>'
    return Html(f"<figure>{drawing}{bars}{axis}</svg>{below}<figcaption>{escaped(label)}</figcaption></figure>")


def strip(
    value: float, band: tuple[float, float] | None = None, control: float | None = None, others: Sequence[float] = ()
) -> Html:
    """Return a value as a dot on a line, its interval as a band, controls as ticks, the strongest one long."""
    band = band if band is not None and all(map(math.isfinite, band)) else None
    shown = [value, *(band or ()), *([] if control is None else [control]), *others]
    known = [one for one in shown if math.isfinite(one)]
    low, high = min([0.0, *known]), max([0.0, *known])
    if not math.isfinite(value) or not math.isfinite(high - low):
        return Html("")
    high = 1.0 if 0.3 < high <= 1 else high + (high - low) * 0.05
    extent = (high - low) or 1.0

    def at(x: float) -> str:
        return f"{5 + (x - low) / extent * 140:.1f}"

    def tick(x: float, reach: int) -> str:
        return f'<line class="sae-tick" x1="{at(x)}" x2="{at(x)}" y1="{9 - reach}" y2="{9 + reach}"/>'

    parts = ['<line class="sae-line" x1="5" x2="145" y1="9" y2="9"/>']
    if band is not None:
        width = max(1.5, float(at(band[1])) - float(at(band[0])))
        parts.append(f'<rect class="sae-band" x="{at(band[0])}" y="4" width="{width:.1f}" height="10"/>')
    parts += [tick(one, 3) for one in others if math.isfinite(one)]
    parts += [tick(control, 6)] if control is not None and math.isfinite(control) else []
    parts.append(f'<circle class="sae-bar" cx="{at(value)}" cy="9" r="4"/>')
    told = f"{number(value)}" + (f", control {number(control)}" if control is not None else "")
    return Html(f'<svg viewBox="0 0 150 18" role="img" aria-label="{escaped(told)}">{"".join(parts)}</svg>')


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> Html:
    """Return a table; columns whose places are in `numeric` are set to the right."""
    right = set(numeric)

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = (' class="sae-number"' if place in right else "" for place in range(len(row)))
        return "".join(f"<{tag}{kind}>{escaped(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', header)}</tr></thead>"
    return Html(f'<div class="sae-scroll"><table>{head}<tbody>{body}</tbody></table></div>')


def folded(title: str, content: str) -> Html:
    """Return something that opens at a press."""
    return Html(f"<details><summary>{escaped(title)}</summary>{escaped(content)}</details>")


def toned(text: str, better: bool | None) -> Html:
    """Return text in the colour of good or bad news; None is neither."""
    kind = "sae-note" if better is None else "sae-better" if better else "sae-worse"
    return Html(f'<span class="{kind}">{escaped(text)}</span>')


def number(value: float) -> str:
    """Return a number with three digits that mean something."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"
