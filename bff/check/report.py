"""The report, as a table for people or as one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TextIO, TypeVar

from bff.check.finding import Finding, Level, plain
from bff.check.masking import Mask
from bff.check.origins import Shown

T = TypeVar("T", Finding, Shown)


@dataclass(frozen=True)
class Report:
    """All findings, and the settings where they were asked for."""

    findings: Sequence[Finding]
    settings: Sequence[Shown] | None = None
    strict: bool = False

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        bad = {Level.ERROR, Level.WARNING} if self.strict else {Level.ERROR}
        return not any(finding.level in bad for finding in self.findings)

    def masked(self, mask: Mask) -> Report:
        """The same without any secret in it."""
        return Report(
            [_masked(finding, mask) for finding in self.findings],
            None if self.settings is None else [_masked(shown, mask) for shown in self.settings],
            self.strict,
        )

    def write(self, out: TextIO, *, as_json: bool) -> None:
        """Write it; characters that `out` cannot hold are escaped."""
        text = self._json() if as_json else "\n".join(self._lines())
        encoding = getattr(out, "encoding", None) or "utf-8"
        out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    def _json(self) -> str:
        document: dict[str, Any] = {"ok": self.ok, "findings": [asdict(each) for each in self.findings]}
        if self.settings is not None:
            document["settings"] = [asdict(each) for each in self.settings]
        return json.dumps(document, indent=2)

    def _lines(self) -> list[str]:
        lines = []
        if self.settings is not None:
            lines += _columns(
                ("SETTING", "VALUE", "FROM"), [(each.name, each.value, each.source) for each in self.settings]
            )
            lines.append("")
        rows = []
        for each in self.findings:
            rows.append((each.level.value, each.area, each.what))
            rows += [("", "", f"fix: {each.fix}")] if each.fix else []
        return [*lines, *_columns(("LEVEL", "AREA", "FINDING"), rows), "", self._summary()]

    def _summary(self) -> str:
        counts = {level: sum(each.level == level for each in self.findings) for level in Level}
        parts = [
            f"{counts[level]} {level.value}{'' if counts[level] == 1 else 's'}"
            for level in (Level.ERROR, Level.WARNING)
            if counts[level]
        ]
        return " and ".join(parts) if parts else "no problems found"


def _masked(item: T, mask: Mask) -> T:
    texts = {
        field.name: mask(value)
        for field in fields(item)
        if isinstance(value := getattr(item, field.name), str) and not isinstance(value, Level)
    }
    return replace(item, **texts)  # type: ignore[arg-type]


def _columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    rows = [tuple(plain(text, len(text)) for text in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
