"""What of the cluster's driver can be tested without a cluster; part of the ordinary tests."""
