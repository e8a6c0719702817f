"""eShop: an event-driven online shop whose orders are paid exactly once."""
