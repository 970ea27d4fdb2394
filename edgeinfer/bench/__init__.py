"""`edgeinfer bench`: the raw network and the whole pipeline, measured in turn in one run."""
