"""`python -m bff.check`: the same without the command line's other commands."""

from __future__ import annotations

import os
import sys

from bff.check import run
from bff.logs import configure

if __name__ == "__main__":
    configure("error", "text")  # to standard error: what goes to standard output is the report alone
    sys.exit(
        run(
            os.environ,
            as_json="--json" in sys.argv,
            strict="--strict" in sys.argv,
            show_config="--show-config" in sys.argv,
            out=sys.stdout,
        )
    )
