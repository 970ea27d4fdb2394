"""Pictures as decoders give them, YUV 4:2:0: how their colours are to be read, and those that lie in host memory."""
