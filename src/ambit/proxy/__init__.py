"""The agent in the pods of waypoints: an identity, an Envoy and what the control plane says it gets."""
