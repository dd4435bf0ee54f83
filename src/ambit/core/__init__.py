"""Vocabulary: names, keys, identities, addresses, selectors, findings."""
