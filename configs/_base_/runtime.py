"""What every run shares. A config sets any of these again to change it."""

amp = 'auto'  # bfloat16 autocast where the CPU or GPU computes it in hardware; 'off' never
seed = 0
log_interval = 10  # iterations between lines in the log
save_every_iters = 0  # last.pth is written after every epoch; also every so many iterations when above 0
tensorboard = False  # needs the extra: pip install -e '.[tensorboard]'
