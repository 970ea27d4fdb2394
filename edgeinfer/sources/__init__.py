"""Where pictures come from: a file for each kind of source, called as the URI's scheme."""
