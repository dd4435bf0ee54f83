"""Messages of others' protocols, in our own .proto files with generated code."""
