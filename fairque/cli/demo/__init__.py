"""`fairque demo`: what the queue is for, shown on real files: one tenant floods it, six small ones come later.

`load` finds the files and makes the plan, `tasks` is what a worker runs, `stage` runs the load once, `tally`
follows it in the server's own records, `screen` shows it, `page` writes the chart, `command` does all in turn.
"""
