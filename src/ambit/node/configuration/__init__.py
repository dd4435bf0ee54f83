"""What the node's Envoy is told: resources of pods, answers to questions, certificates."""
