"""What the producer knows of the cluster, and how a connection is set up. Nothing here does input or output."""
