"""The gRPC contracts and the stubs generated from them."""
