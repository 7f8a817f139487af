"""Faults under load: what users notice when a process, Redis, the provider or the API dies or hangs."""
