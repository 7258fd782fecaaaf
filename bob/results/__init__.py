"""Records, statistics and the leaderboard. Nothing here imports torch."""
