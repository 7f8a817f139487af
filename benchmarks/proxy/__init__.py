"""What a proxied request costs, beside other proxies that know sessions. See docs/performance.md."""
