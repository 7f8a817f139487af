"""What the benchmark of the proxy says follows from what it measured: ratios, targets, tables, plot."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.proxy import documentation, plot, report, result, targets
from benchmarks.proxy.result import CONNECTIONS, Memory, Renewal, Result, Run, Slow, Streams

TITLES = {
    "nginx": "nginx",
    "apache": "Apache",
    "apache-plain": "Apache, plain",
    "oauth2-proxy": "oauth2-proxy",
    "tutorial": "a tutorial's <Flask>",
    "ours-1": "bff, 1 worker",
    "ours-2": "bff, 2 workers",
}
MIB = 2**20


def run(system: str, cpu: float, number: int = 0, connections: int = 16, **more: float) -> Run:
    """A run with figures that matter little, but for those given."""
    figures: dict[str, float] = {
        "requests": 1000,
        "rate": 500,
        "p50": 0.001,
        "p99": 0.01,
        "broken": 0,
        "redis_cpu": 10,
        "strangers": 0,
    }
    return Run(system, number, connections, cpu=cpu, **(figures | more))  # type: ignore[arg-type]


def good() -> Result:
    """A result in which every target is met, each by little."""
    cpu = {"nginx": 20, "apache": 340, "apache-plain": 210, "oauth2-proxy": 225, "tutorial": 1820}
    cpu |= {"ours-1": 90, "ours-2": 89}
    return Result(
        when="2026-01-02T03:04:05+00:00",
        quick=False,
        machine={"cores": "2", "CPU": "a model"},
        titles=TITLES,
        runs=[run(key, value, 0, number) for key, value in cpu.items() for number in CONNECTIONS],
        slow=[
            Slow("upstream", 190.0, 1.0, 1.01, 0),
            Slow("ours-1", 185.0, 1.0, 1.09, 0),
            Slow("ours-2", 186.0, 1.0, 1.1, 0),
        ],
        memory={"ours-2": Memory(90 * MIB, 100 * MIB, 110 * MIB)},
        renewals=[
            Renewal("no", 0, 500, 0.001, 0.01, 0),
            Renewal("few", 1.8, 500, 0.001, 0.0101, 0),
            Renewal("many", 18, 500, 0.001, 0.0109, 0),
        ],
        streams=Streams(2000, 2000, 50 * MIB, 149 * MIB),
    )


def test_a_ratio_is_taken_within_each_round() -> None:
    """A round in which the machine was slow for both does not bend it; a missing partner is left out."""
    runs = [
        run("a", 10, 0),
        run("b", 20, 0),
        run("a", 500, 1),
        run("b", 1000, 1),
        run("a", 30, 2),
        run("b", 60, 2),
    ]
    found = Result("", False, {}, {}, runs=[*runs, run("a", 7, 3)])
    assert found.ratio("a", "b", 16, lambda each: each.cpu) == 0.5
    assert found.ratio("a", "c", 16, lambda each: each.cpu) is None
    assert found.median("a", 16, lambda each: each.cpu) == 20


def test_targets_that_are_met() -> None:
    """At the limit is within it, and every target has its verdict."""
    verdicts = targets.judge(good())
    assert len(verdicts) == 21
    assert [verdict for verdict in verdicts if not verdict.met] == []


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"runs": [run("ours-1", 93), run("apache", 340)]}, "CPU of bff, 1 worker to that of Apache"),
        ({"runs": [run("ours-2", 91), run("nginx", 20)]}, "CPU of bff, 2 workers to that of nginx"),
        ({"slow": [Slow("upstream", 100, 1, 1, 0), Slow("ours-1", 96.9, 1, 1, 0)]}, "throughput to its own"),
        ({"slow": [Slow("ours-2", 100, 1, 1.11, 0)]}, "slow upstream, bff, 2 workers: p99"),
        ({"slow": [Slow("ours-2", 100, 1, 1, 0), Slow("ours-2", 100, 1, 1, 1)]}, "2 workers: errors"),
        ({"memory": {"ours-2": Memory(90 * MIB, 111 * MIB, 90 * MIB)}}, "proportional set size"),
        ({"memory": {"ours-2": Memory(90 * MIB, 90 * MIB, 111 * MIB)}}, "sharing with nobody"),
        ({"streams": Streams(2000, 1999, 1, 2)}, "idle event streams"),
        ({"streams": Streams(2000, 2000, 1, 150 * MIB)}, "idle event streams"),
        ({"renewals": [Renewal("no", 0, 1, 1, 1, 0), Renewal("few", 1, 1, 1, 1.2, 0)]}, "beside few"),
        ({"renewals": [Renewal("no", 0, 1, 1, 1, 0), Renewal("many", 1, 1, 1, 1.2, 0)]}, "beside many"),
    ],
)
def test_targets_that_are_missed(change: dict[str, object], missed: str) -> None:
    """Each is told, alone, and in words on the terminal."""
    found = good()
    for name, value in change.items():
        setattr(found, name, value)
    verdicts = [verdict for verdict in targets.judge(found) if verdict.met is False]
    assert len(verdicts) == 1
    assert missed in verdicts[0].what
    assert "MISSED" in dict(report.sections(found))["Targets"]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """An empty result has no figure to be proud of."""
    empty = Result("", True, {}, {}, missing=["left out: nginx is missing: apt install nginx"])
    assert {verdict.word for verdict in targets.judge(empty)} == {"not measured"}
    assert "- left out: nginx" in dict(report.sections(empty))["Not measured"]


def test_a_result_survives_its_file() -> None:
    """What is kept as JSON is what was measured."""
    assert result.read(result.write(good())) == good()


def test_tables_are_aligned_markdown() -> None:
    """Each line as long as the others, figures to the right."""
    text = report.table(("", "µs"), [("nginx", "9"), ("a", "1,234")])
    assert text.splitlines() == [
        "|       |    µs |",
        "| ----- | ----: |",
        "| nginx |     9 |",
        "| a     | 1,234 |",
    ]


def test_tables_hold_the_figures() -> None:
    """Cost, ratio, slow upstream, memory and streams stand under their headings; gaps are dashes."""
    found = good()
    found.runs = [each for each in found.runs if (each.system, each.connections) != ("nginx", 1)]
    parts = dict(report.sections(found))
    rows = {line.split("|")[1].strip(): line for line in parts["CPU time and throughput"].splitlines()}
    assert [cell.strip() for cell in rows["nginx"].split("|")[2:5]] == ["–", "20.0", "20.0"]
    assert "4.50" in parts["Ratios"]
    assert "97.4%" in parts["200 clients on an upstream that takes 1 s"]
    assert "110.0" in parts["Memory"]
    assert "149.0 MiB with them" in parts["Memory"]
    assert "10.90" in parts["A refresh in the middle of load"]


@pytest.mark.parametrize(("strangers", "warned"), [(0.05, False), (0.8, True)])
def test_a_busy_machine_is_told(strangers: float, warned: bool) -> None:
    """Figures of a machine that did something else carry a warning."""
    found = good()
    found.runs = [run("ours-1", 90, strangers=strangers)]
    assert ("no quiet machine" in dict(report.sections(found))["The machine of these figures"]) == warned


def test_the_plot_is_right() -> None:
    """It is well-formed, its bars are as long as their logarithms, and ours stands out."""
    bars = [plot.Bar("nginx & <co>", 20), plot.Bar("bff", 200, ours=True), plot.Bar("slow", 2000)]
    picture = ElementTree.fromstring(plot.svg("A <title>", "µs", bars))
    drawn = picture.findall("{*}rect")
    lengths = [float(each.attrib["width"]) for each in drawn]
    assert lengths[1] - lengths[0] == pytest.approx(lengths[2] - lengths[1], abs=0.2)
    assert lengths[0] == pytest.approx(plot.WIDTH * plot.position(20, 10, 10_000), abs=0.1)
    assert [each.attrib["class"] for each in drawn] == ["b", "o", "b"]
    texts = [each.text for each in picture.findall("{*}text")]
    assert {"nginx & <co>", "2,000", "A <title>"} <= set(texts)


@pytest.mark.parametrize("value", [0.4, 1.0, 9.99, 10.0, 45.0, 1000.0])
def test_no_bar_leaves_the_plot(value: float) -> None:
    """Whatever the figures are, the axis begins below the least and ends above the greatest."""
    picture = ElementTree.fromstring(plot.svg("", "", [plot.Bar("one", value)]))
    width = float(picture.findall("{*}rect")[0].attrib["width"])
    assert 0 < width < plot.WIDTH


def test_the_documentation_takes_figures() -> None:
    """The page has the place for them; what stands around it stays, what stood in it goes."""
    page = documentation.PAGE.read_text()
    once = documentation.replaced(page, "some figures")
    assert documentation.replaced(once, "other figures").count("figures\n\n<!-- end") == 1
    assert "some figures" not in documentation.replaced(once, "other figures")
    assert once.partition(documentation.BEGIN)[0] == page.partition(documentation.BEGIN)[0]
    assert once.endswith(page.partition(documentation.END)[2])
    with pytest.raises(ValueError, match="marks"):
        documentation.replaced("a page without them", "figures")


def test_a_run_is_written_into_the_documentation(tmp_path: Path) -> None:
    """Tables into the page, the plot beside it."""
    page, picture = tmp_path / "page.md", tmp_path / "plot.svg"
    page.write_text(f"# Title\n{documentation.BEGIN}\n{documentation.END}\n## After\n")
    documentation.write(good(), page, picture)
    assert "### Ratios" in page.read_text()
    assert page.read_text().endswith("\n## After\n")
    ElementTree.fromstring(picture.read_text())
