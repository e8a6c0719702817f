"""The use cases, one module per service. A handler claims, loads, folds, saves and appends for a batch."""
