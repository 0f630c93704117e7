"""Publishing: keys, repositories of signed releases, and sending them to where updaters fetch.

For the command `roost release`; the running updater needs nothing of it but `cut`.
"""
