"""A token bucket per caller, on a clock that the shell reads."""


class RateLimit:
    """`burst` at once, then `rate` per second, per key. Memory is bounded: full buckets are forgotten."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self._burst = float(burst)
        self._levels: dict[str, tuple[float, float]] = {}

    def allow(self, key: str, now: float) -> bool:
        """Take one token at monotonic time `now` in seconds; False when there is none."""
        level, then = self._levels.get(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - then) * self.rate)
        allowed = level >= 1.0
        self._levels[key] = (level - 1.0 if allowed else level, now)
        if len(self._levels) > 10_000:
            self._forget(now)
        return allowed

    def _forget(self, now: float) -> None:
        self._levels = {
            key: (level, then)
            for key, (level, then) in self._levels.items()
            if level + (now - then) * self.rate < self._burst
        }
