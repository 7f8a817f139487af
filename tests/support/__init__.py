"""Counterparts for tests: a provider, an upstream, a store and a browser, each of which can misbehave."""
