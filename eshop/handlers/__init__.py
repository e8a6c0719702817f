"""One module per service: claim, load, fold, save, append, for a batch."""
