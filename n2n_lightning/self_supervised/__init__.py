"""Losses for one noisy image of each scene (``data=single``), one module each; they take the net itself.

Each is a pure function ``method(net, noisy, seeds, *, settings)``:

* net: denoises (N, C, H, W) float32.
* noisy: the images, (N, C, H, W) float32 in units of the range.
* seeds: int64; (N,) gives each image its own random numbers, which do not depend on the batch; (1,) is for the batch.

It returns a scalar. It may ask for the arguments of ``choices.ASKED_ARGUMENTS`` too.
"""
