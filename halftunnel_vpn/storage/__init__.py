"""Files that must survive a crash, a power cut and a hostile neighbour."""
