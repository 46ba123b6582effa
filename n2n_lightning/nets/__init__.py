"""The networks: plain ``nn.Module``s that take (N, C, H, W) images of any size and pad them themselves."""
