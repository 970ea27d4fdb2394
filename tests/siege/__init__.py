"""A siege: one daemon with good cameras and good subscribers, and everything that strangers do to it, at once."""
