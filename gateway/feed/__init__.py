"""The live feed: events in, each user's frames out, in order and without a gap."""
