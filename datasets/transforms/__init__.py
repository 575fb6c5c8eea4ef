"""What happens to a picture before the network sees it. Importing the package registers its transforms."""

from falconet.datasets.transforms import boxes, masks, mosaic, resize, torchvision_policies

__all__ = ['boxes', 'masks', 'mosaic', 'resize', 'torchvision_policies']
