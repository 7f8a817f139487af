"""A container's health check: exit 0 where the address given answers 200 in time, else 1 and a line why.

Usage: python probe.py http://HOST:PORT/PATH
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

ANSWER_SECONDS = 4.0
"""Less than the engine's own limit, so that the line can still be read in `docker inspect`."""


def main(url: str) -> int:
    """Ask once, without redirects or proxies."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer: {type(error).__name__}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"status {status}\n")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
