"""Where pictures come from. One file a kind of source; its name is the URI's scheme."""
