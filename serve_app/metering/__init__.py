"""What each request took and what it cost: its record, its tokens and dollars, the log and the metrics."""
