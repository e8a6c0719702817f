"""The broker without Faust: topics as they must be, and bounded looks into a log."""
