"""AWS on this machine: emulated APIs over HTTP, Lambdas really run, instances are processes.

Nothing here imports the rest of Spotrelay, so that the emulated cloud cannot share a misunderstanding with it.
"""
