"""What stored features say without training on them: spectrum, geometry, likeness, and how well they may transfer."""
