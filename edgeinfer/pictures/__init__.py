"""Pictures as decoders give them, YUV 4:2:0, how their colours are to be read, and how results are drawn into them."""
