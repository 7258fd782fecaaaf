"""The report: one HTML page of all results, and its pictures."""
