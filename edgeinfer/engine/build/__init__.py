"""Makes an engine in a child process, which may crash: network, precision, calibration, the check of the result."""
