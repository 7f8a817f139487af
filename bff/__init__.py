"""A backend-for-frontend: the confidential OpenID Connect client that keeps tokens out of browsers."""

__version__ = "0.1.0"
