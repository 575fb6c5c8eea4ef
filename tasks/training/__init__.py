"""Training and evaluation: a wrapper around mmengine's Runner, with its known gaps filled."""
