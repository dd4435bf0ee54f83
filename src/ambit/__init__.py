"""ambit: a sidecar-less service mesh. Python decides, stock Envoy carries."""

__version__ = "0.1.0"
