"""A run on disk: its folder, its settings and course, its checkpoints, event files."""
