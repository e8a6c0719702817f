"""From the outbox to Kafka."""
