"""A read-through cache whose loss costs only speed."""
