"""Real brokers behind a proxy that breaks connections: what the guarantees of the producer are worth."""
