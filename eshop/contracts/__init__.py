"""What crosses a wire: topics, envelope, message models, gRPC."""
