"""The eshop command."""
