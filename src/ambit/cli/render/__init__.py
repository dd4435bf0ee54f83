"""Tables, JSON and YAML for the terminal."""
