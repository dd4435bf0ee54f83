"""What Envoy tells of connections, requests and datagrams, and whom."""
