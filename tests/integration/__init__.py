"""kprod against real Apache Kafka; what it wrote is judged by other clients only."""
