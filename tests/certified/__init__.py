"""The whole flow against a provider that others wrote and certified: npm's `oidc-provider`."""
