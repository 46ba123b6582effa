"""Plain ``nn.Module``s: scalars in, a net out; each takes (N, C, H, W) of any size and pads for itself."""
