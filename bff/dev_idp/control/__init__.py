"""The provider's control page and API: faults, keys, groups and clients for anyone's tests."""
