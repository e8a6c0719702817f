"""gRPC: servicers and the client."""
