"""What the server tells about itself: its log and its metrics."""
