"""Typed projections of API objects, the CRDs we ship, schema and CEL validation."""
