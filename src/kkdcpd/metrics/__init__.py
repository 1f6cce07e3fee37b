"""The metrics: declared in columns, stored in memory, written by counters, read by reader and exposition."""
