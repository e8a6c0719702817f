"""Everything that crosses a wire: topics, services, envelope, message models, gRPC."""
