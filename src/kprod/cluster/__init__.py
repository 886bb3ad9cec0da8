"""What the producer knows of the cluster, and how connections are set up; without input or output."""
