"""A Kafka producer for Python with a Cython core."""
