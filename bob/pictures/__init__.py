"""Pictures of what runs predict."""
