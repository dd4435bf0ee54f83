"""The mesh's settings (Istio: MeshConfig), and the providers that they name."""
