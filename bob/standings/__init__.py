"""The standings: what a table of runs says about backbones, how sure it is, and who is better than whom."""
