"""Sessions and refresh over real processes: two servers, one Redis, and a provider that rotates strictly."""
