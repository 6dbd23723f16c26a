"""The Autoregressive U-Net: layers, layout of ragged batches, pooling, upsampling, accounting."""
