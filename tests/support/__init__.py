"""What tests of several kinds need: builders, processes, fakes."""
