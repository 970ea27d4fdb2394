"""The way of a frame: capture, mailbox, inference, publisher, and the books that are kept of it."""
