"""What redirects a pod's traffic to the node proxy: nftables text and its application."""
