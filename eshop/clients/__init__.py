"""The callers' side of the services' gRPC."""
