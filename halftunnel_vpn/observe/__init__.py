"""What other processes may see of a running process: its log and its metrics."""
