"""Real Apache Kafka for the tests: fetching it, running clusters of it, and reading back what is there.

Nothing in here imports kprod: what these modules say about a topic is independent of the code under test.
"""
