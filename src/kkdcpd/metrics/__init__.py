"""The metrics: what is counted (columns), where (memory), by whom (counters), and how it is read and told."""
