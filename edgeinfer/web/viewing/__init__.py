"""What the page and the API show: kept ready beside the data path, which never waits for it."""
