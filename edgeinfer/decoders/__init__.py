"""Raw network outputs → detections: a file for each family of layouts, called as in the card's `decoder.name`."""
