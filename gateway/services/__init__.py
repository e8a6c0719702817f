"""What the gateway asks of the services, batched, cached and waited for."""
