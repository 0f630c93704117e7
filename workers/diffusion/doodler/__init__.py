"""The doodler: a small text-to-image model that Roost trains itself, on drawings it makes itself.

`python -m workers.diffusion.doodler.train --out FOLDER` makes the data, trains every part and writes a plain diffusers
folder; `python -m workers.diffusion.doodler.judge FOLDER` measures it. Nothing here runs when Roost serves: the
backend loads the folder like any other pipeline.
"""
