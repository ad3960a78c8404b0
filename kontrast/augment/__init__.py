"""Augmentation: modules from a batch of images to a batch of images, every image with its own draw."""
