"""What can happen to a training, done to it: deaths at every file-system call, kills, flipped bits, full disks, races."""
