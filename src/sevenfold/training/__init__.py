"""The one loop, and what it is made of: recipes, optimizers, schedules, checkpoints, the log, the run folder."""
