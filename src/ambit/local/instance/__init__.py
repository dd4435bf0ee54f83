"""One instance of the laptop cluster: starting, watching over and ending its processes."""
