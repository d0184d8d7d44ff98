"""From a parsed request to a work item: pure decisions."""
