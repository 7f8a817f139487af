"""`bff check`."""
