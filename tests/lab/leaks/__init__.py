"""Whether anything leaves a host outside its tunnel: traffic of every kind, the wire, and a verdict."""
