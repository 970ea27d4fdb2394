"""One module per command; its click command is called `command`, and the module's name is the command's name."""
