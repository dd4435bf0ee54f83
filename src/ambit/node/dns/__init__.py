"""The DNS proxy that answers inside pods."""
