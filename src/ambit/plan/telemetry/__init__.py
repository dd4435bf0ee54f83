"""What a proxy tells of connections and requests, and whom."""
