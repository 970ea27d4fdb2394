"""The data path: capture → mailbox → inference → publisher, and the books that are kept of it."""
