"""Operators' calls of the services by gRPC. A command imports a module when it runs: not so the launcher."""
