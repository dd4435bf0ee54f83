"""What one asks of pods beside the object: exec, logs, ports."""
