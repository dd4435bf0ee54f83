"""What only waypoints and gateways have."""
