"""What is measured is that listeners are taken, not refused."""

from bench import listeners


def test_all_listeners_of_the_measurement_are_taken() -> None:
    assert listeners.measured(listeners.PER_SET + 1).keys() == {"cold_s", "one_set_ms", "secret_ms"}
