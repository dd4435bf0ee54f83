"""What every long-running process of ours has: log lines, a small HTTP server, process identities."""
