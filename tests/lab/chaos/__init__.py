"""Roads that die, in the lab: legs killed at random, addresses that change, front ends that restart."""
