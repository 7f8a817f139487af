"""This confidential client at its provider, all flows together."""

from __future__ import annotations

from bff.provider.renewal import Renewal
from bff.provider.service import ClientCredentials
from bff.provider.sign_in import SignIn
from bff.provider.sign_out import SignOut


class Provider(SignIn, Renewal, SignOut, ClientCredentials):
    """The provider of the settings; safe to share between threads."""
