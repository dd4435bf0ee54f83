"""What objects of policies and telemetry say became of them."""
