"""Raw network outputs → detections. One file a family of output layouts; its name is the card's `decoder.name`."""
