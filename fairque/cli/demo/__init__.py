"""`fairque demo`: the queue shows what it is for, on real files of this machine."""
