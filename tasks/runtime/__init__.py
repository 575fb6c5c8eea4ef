"""What a run needs beyond mmengine: plain checkpoints, exact resume, progress, autocast, seeding."""
