"""Pod network namespaces: entering, checking, pinning."""
