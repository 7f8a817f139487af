"""Reads typed values from environment variables and collects every problem on the way.

Each reader method returns the default when it finds a problem, so that one pass over all settings
reports all problems at once.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

# A host name or an address, as they may stand in a URL; keeps spaces, quotes and userinfo out.
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class Environment:
    """A mapping of environment variables together with the problems found in it so far."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.problems: list[str] = []

    def problem(self, name: str, cause: str, fix: str) -> None:
        """Note one problem: the variable, what is wrong, what to do. Never quotes a secret."""
        self.problems.append(f"{name}: {cause}. {fix}.")

    def text(self, name: str, default: str) -> str:
        """The value without surrounding blanks; unset and empty both mean the default."""
        return self._variables.get(name, "").strip() or default

    def secret(self, name: str, default: str) -> str:
        """The value of `name`, or the content of the file that `name`_FILE names.

        A newline at the end of the file is not part of the secret.
        """
        path = self._variables.get(f"{name}_FILE", "")
        value = self._variables.get(name, "")
        if not path:
            return value or default
        if value:
            self.problem(name, f"both {name} and {name}_FILE are set", "Set one of the two")
            return default
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            why = type(error).__name__
            self.problem(f"{name}_FILE", f"the file can't be read ({why})", "Name a readable text file")
            return default
        content = content.removesuffix("\n").removesuffix("\r")
        if not content:
            self.problem(f"{name}_FILE", "the file is empty", "Put the secret into it")
        return content or default

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number between `least` and `most`, both included."""
        raw = self.text(name, str(default))
        # int() would also take "1_000", "+5" and other scripts' digits; a configuration should not.
        if raw.isascii() and raw.isdigit() and len(raw) <= 12 and least <= int(raw) <= most:
            return int(raw)
        self.problem(name, "not a number in range", f"Give a whole number from {least} to {most}")
        return default

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of a few words, in any case."""
        raw = self.text(name, default).lower()
        if raw in allowed:
            return raw
        self.problem(name, "an unknown value", f"Use one of: {', '.join(allowed)}")
        return default

    def bind(self, name: str, default: str) -> str:
        """A listen address, `host:port`."""
        raw = self.text(name, default)
        host, _, port = raw.rpartition(":")
        if _HOST.fullmatch(host) and port.isascii() and port.isdigit() and int(port[:6]) <= 65535:
            return raw
        self.problem(name, "not a listen address", f"Give host:port, such as {default}")
        return default

    def origin(self, name: str, default: str) -> str:
        """A URL's scheme, host and port with nothing behind them; a final slash is dropped."""
        raw = self.text(name, default).removesuffix("/")
        parts = split_url(raw)
        if parts is not None and not parts.path and not parts.query:
            return raw
        self.problem(name, "not an origin", f"Give scheme, host and port only, such as {default}")
        return default

    def issuer(self, name: str, default: str) -> str:
        """An issuer identifier, kept as it stands since clients compare it byte by byte."""
        raw = self.text(name, default)
        parts = split_url(raw)
        if parts is not None and not parts.query and re.fullmatch(r"[\w/.~-]*", parts.path):
            return raw
        self.problem(name, "not an issuer", f"Give a URL without query, such as {default}")
        return default

    def urls(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A comma-separated list of http or https URLs without fragment."""
        found = tuple(part.strip() for part in self.text(name, "").split(",") if part.strip())
        if all(split_url(url) for url in found):
            return found or default
        self.problem(
            name,
            "a value that is not an http or https URL without fragment",
            f"Give comma-separated URLs, such as {','.join(default)}",
        )
        return default


def split_url(url: str) -> SplitResult | None:
    """The parts of an absolute http or https URL, or None when it isn't one we want to redirect to.

    Refuses user names, fragments, blanks, control characters and backslashes: browsers and
    libraries disagree about where such URLs lead.
    """
    if not url.isascii() or re.search(r"[\x00-\x20\x7f\\\"<>]", url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.netloc.removesuffix(f":{port}") if port is not None else parts.netloc
    if parts.scheme not in ("http", "https") or "#" in url or not _HOST.fullmatch(host):
        return None
    return parts


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL that `split_url` accepted, as a browser writes an origin."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{host_of(url)}"


def host_of(url: str) -> str:
    """Host and port of a URL as a `Host` header carries them: lower case, no default port."""
    parts = urlsplit(url)
    default_port = ":443" if parts.scheme == "https" else ":80"
    return parts.netloc.lower().removesuffix(default_port)
