"""The configurations of deploy/ for proxies in front, each run in the proxy that it is for."""
