"""HTTP: requests in, responses and problems out."""
