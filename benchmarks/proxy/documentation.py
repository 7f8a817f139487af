"""The part of docs/performance.md that a run writes, and its plot."""

from __future__ import annotations

from pathlib import Path

from benchmarks.proxy.report import picture, sections
from benchmarks.proxy.result import Result
from benchmarks.proxy.world import ROOT

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "performance.svg"
BEGIN = "<!-- figures: written by `python -m benchmarks.proxy --docs` -->"
END = "<!-- end of the figures -->"


def replaced(page: str, figures: str) -> str:
    """The page with other figures between the two marks. Raises ValueError where a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the marks that the figures stand between")
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def figures(result: Result) -> str:
    """The tables under their headings."""
    return "\n\n".join(f"### {heading}\n\n{content}" for heading, content in sections(result))


def write(result: Result, page: Path = PAGE, plot: Path = PLOT) -> None:
    """Put a run's figures into the documentation."""
    page.write_text(replaced(page.read_text(), figures(result)))
    plot.write_text(picture(result))
