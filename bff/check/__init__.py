"""`bff check`: everything that can be wrong around this server, said at once, each with its fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO


def run(environ: Mapping[str, str], *, as_json: bool, strict: bool, show_config: bool, out: TextIO) -> int:
    """Examine what `environ` (usually `os.environ`) configures, and write the report to `out`.

    Returns the exit status: 1 where there is an error or, with `strict`, a warning, and else 0.
    Raises nothing that a configuration or a peer could cause; no secret is ever written.
    """
    from bff.check.configuration import read
    from bff.check.examination import examine
    from bff.check.masking import Mask
    from bff.check.origins import describe
    from bff.check.report import Report
    from bff.check.resource import check_api

    configuration = read(environ)
    report = Report(
        [*examine(configuration), *check_api(environ, configuration)],
        describe(environ, configuration) if show_config else None,
        strict=strict,
    ).masked(Mask.of(environ, configuration))
    report.write(out, as_json=as_json)
    return 0 if report.ok else 1
