"""What others may see of a running process: its log and its metrics."""
