"""Several exits of one profile: which is used, when another one is, and how long the way to each is."""
