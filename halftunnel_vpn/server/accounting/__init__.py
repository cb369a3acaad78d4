"""What each client uses, what it may use, and what the exit says about it."""
