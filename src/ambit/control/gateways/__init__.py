"""Makes proxies of Gateways run."""
