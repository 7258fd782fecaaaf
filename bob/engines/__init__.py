"""End-to-end training: what a recipe says, and the loop that follows it."""
