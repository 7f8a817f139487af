"""A plot as SVG: horizontal bars on a logarithmic axis, for figures that lie powers of ten apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, WIDTH, RIGHT = 330, 470, 90
TOP, ROW, BAR = 56, 30, 18
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:15px}"
    ".g{stroke:#d0d7de}.b{fill:#8c959f}.o{fill:#0969da}.s{fill:#57606a;font-size:12px}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#30363d}.b{fill:#6e7681}"
    ".o{fill:#4493f8}.s{fill:#9198a1}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; `ours` gives it the colour that stands out."""

    label: str
    value: float
    ours: bool = False


def position(value: float, low: float, high: float) -> float:
    """How far along a logarithmic axis a value lies: 0 at `low`, 1 at `high`."""
    return math.log(value / low) / math.log(high / low)


def svg(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """The picture. Values must be above 0; without bars there is only the title."""
    values = [bar.value for bar in bars] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(values)) - 0.01)
    high = 10.0 ** math.ceil(math.log10(max(values)) + 0.01)
    bottom = TOP + ROW * len(bars)
    width, height = LEFT + WIDTH + RIGHT, bottom + 30
    size = f'viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text class="t" x="8" y="20">{escape(title)}</text>',
        f'<text class="s" x="8" y="38">{escape(unit)}, logarithmic axis; less is better</text>',
    ]
    parts += [_line(10.0**power, low, high, bottom) for power in _powers(low, high)]
    parts += [_bar(number, bar, low, high) for number, bar in enumerate(bars)]
    return "\n".join([*parts, "</svg>", ""])


def _powers(low: float, high: float) -> range:
    return range(round(math.log10(low)), round(math.log10(high)) + 1)


def _line(value: float, low: float, high: float, bottom: int) -> str:
    x = LEFT + WIDTH * position(value, low, high)
    return (
        f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>'
        f'<text class="s" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,g}</text>'
    )


def _bar(number: int, bar: Bar, low: float, high: float) -> str:
    y = TOP + ROW * number
    length = WIDTH * position(bar.value, low, high)
    kind = "o" if bar.ours else "b"
    return (
        f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}">{bar.value:,.0f}</text>'
    )
