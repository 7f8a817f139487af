"""Password hashes and the password policy."""

import hashlib
import hmac
import os
import re

# A sixteenth of the usual cost: a local sign-in should be quick, and these users are made up.
_COST = 2**10
_BLOCK_SIZE = 8
LONGEST = 256

# What Amazon Cognito demands by default.
_POLICY: tuple[tuple[str, str], ...] = (
    (r"(?s).{8,}", "at least 8 characters"),
    (r"[a-z]", "a lower-case letter"),
    (r"[A-Z]", "an upper-case letter"),
    (r"[0-9]", "a digit"),
    (r"[^A-Za-z0-9\s]", "a symbol"),
)


def hash_password(password: str) -> str:
    """A salted scrypt hash, as hexadecimal `salt:hash`."""
    salt = os.urandom(16)
    return f"{salt.hex()}:{_scrypt(password, salt).hex()}"


def matches(password: str, stored: str) -> bool:
    """Whether the password belongs to the hash, compared in constant time."""
    salt, _, expected = stored.partition(":")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(expected))


def shortcomings(password: str) -> list[str]:
    """What the password lacks, in words for the sign-up page; empty when it is good."""
    if len(password) > LONGEST:
        return [f"at most {LONGEST} characters"]
    return [need for pattern, need in _POLICY if not re.search(pattern, password)]


def _scrypt(password: str, salt: bytes) -> bytes:
    # Hashed first, since scrypt's HMAC pads a short password with zeros: "x" and "x\0" would match.
    data = hashlib.sha256(password.encode("utf-8", "surrogatepass"))
    return hashlib.scrypt(data.digest(), salt=salt, n=_COST, r=_BLOCK_SIZE, p=1, dklen=32)


# Compared with when the user is unknown, so that the answer takes as long as for a known one.
NOBODY = hash_password("")
