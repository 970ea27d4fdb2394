"""A module for each command, called as the command; its click command is called `command`."""
