"""What is submitted: bundles, read warily, and all that can be checked without an engine."""
