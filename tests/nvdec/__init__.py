"""NVDEC through PyNvVideoCodec: on a GPU where there is one, and elsewhere on a stub that decodes with FFmpeg."""
