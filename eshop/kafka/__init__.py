"""The broker without Faust: topics with their properties, and bounded reads of a log."""
