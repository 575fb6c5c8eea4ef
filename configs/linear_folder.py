"""Your own pictures: one folder per class, nothing else.

Data       my_pictures/<class>/*.jpg; a fifth of every class is set aside for testing, by file name
Command    python tools/train.py configs/linear_folder.py --data-root my_pictures
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     that of linear_intel.py, over 10 epochs
Published  nothing: it is your data
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/my_pictures'

model = dict(
    backbone=dict(type='MobileNetV2', width=1.0, pretrained='torchvision'),
    head=dict(type='LinearHead', dropout=0.2, label_smoothing=0.1),
    normalise='imagenet',
)

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='ImageFolder',
        holdout=0.2,
        augment=[
            dict(type='RandomResizedCrop', size=(224, 224), scale=(0.5, 1.0)),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='ImageFolder',
        holdout=0.2,
        augment=[dict(type='ResizeCenterCrop', resize=256, crop=224)],
    ),
)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, begin=0, end=1),
    dict(type='CosineAnnealingLR', begin=1, end=10, T_max=9, eta_min=1e-6),
]
early_stopping = dict(patience=5)
