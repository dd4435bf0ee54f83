"""The Envoy of one waypoint or gateway."""
