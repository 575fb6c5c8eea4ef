"""ImageNet classification: MobileNetV2 1.0 at 224 px, the paper's recipe.

Paper      arXiv 1801.04381, section 6.1; what the paper leaves open follows slim's train_image_classifier
           (label smoothing 0.1, dropout 0.2, moving average 0.9999, random crops of 8 to 100 % of the area).
           The warm-up over 5 epochs is ours
Data       data/imagenet/train/<wnid>/*.JPEG and data/imagenet/val/<wnid>/*.JPEG
Command    torchrun --nproc_per_node=16 tools/train.py configs/linear_imagenet.py --launcher pytorch
Recipe     RMSProp as TensorFlow computes it (decay 0.9, momentum 0.9), lr 0.045 x 0.98 an epoch, weight decay
           4e-5, 16 workers x batch 96. The paper's workers stepped on their own; these average their
           gradients, so one step sees 1536 images. With fewer processes keep the product, with
           optim_wrapper.accumulative_counts.
Cost       300 epochs (torchvision's count; the paper names none); not run by us
Published  top-1 72.0 (paper), 71.8 (slim), 71.878 (torchvision V1, SGD)
Measured   torchvision's weights, restored from an 8-bit file, on 100 photographs of ImageNet's *training*
           split (which flatters them): see README.md. Training from scratch has not been measured.
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/imagenet'

model = dict(
    backbone=dict(type='MobileNetV2', width=1.0),
    head=dict(type='LinearHead', dropout=0.2, label_smoothing=0.1),
    normalise='imagenet',
)

train_dataloader = dict(
    batch_size=96,
    num_workers=8,
    dataset=dict(
        type='ImageNet',
        split='train',
        augment=[
            dict(type='RandomResizedCrop', size=(224, 224), scale=(0.08, 1.0)),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type='ImageNet',
        split='val',
        augment=[dict(type='ResizeCenterCrop', resize=256, crop=224)],
    ),
)

train_cfg = dict(max_epochs=300)
optim_wrapper = dict(
    optimizer=dict(type='RMSpropTF', lr=0.045, alpha=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=5 / 300),
    dict(type='ExponentialLR', gamma=0.98),
]
ema = dict(decay=0.9999)
