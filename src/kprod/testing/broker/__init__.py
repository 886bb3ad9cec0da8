"""The broker side of the mock cluster: logs, coordinators and the answer to each request."""
