"""Sessions: the cookie holds a random id, Redis holds the rest, and nothing ended ever comes back."""
