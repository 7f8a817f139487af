"""The identity provider, seen through Authlib: discovery, sign-in, refresh, revocation, sign-out."""
