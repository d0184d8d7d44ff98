"""What the process tells about itself: logs, metrics, recent errors."""
