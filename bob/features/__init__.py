"""Features: extracted once, stored, read back."""
