"""Gateway API objects to model values: waypoints, what they are bound to, and routes."""
