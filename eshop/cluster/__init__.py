"""The whole shop without Docker: real Kafka, Postgres and Valkey as child processes."""
