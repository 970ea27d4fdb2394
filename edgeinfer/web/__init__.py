"""The small HTTP server: health and metrics, for service managers and Prometheus."""
