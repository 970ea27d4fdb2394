"""Who may do what at the page and its API: tokens, sessions, and what a web page of somebody else may not.

Nothing here knows a web framework; `web/site/entry.py` asks.
"""
