"""Waypoints and gateways: what each gets, when, and what it refuses."""
