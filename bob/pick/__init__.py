"""`bob pick`: which backbone suits a folder of labelled images, found within a budget of time."""
