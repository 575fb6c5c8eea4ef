"""A small part of PASCAL VOC: the recipe of deeplabv3_folder.py, for VOC's own layout and lists.

Data       data/VOCdevkit/VOC2012, with a few hundred pictures in ImageSets/Segmentation/train.txt
Command    python tools/train.py configs/deeplabv3_voc_small.py --data-root VOCdevkit --seed 0
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     AdamW 1e-3, the backbone at 0.3 of it, cosine, crop 321, scale 0.5 to 1.25, flips,
           colours, 24 epochs
Measured   see the table in README.md
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/VOCdevkit'

model = dict(
    backbone=dict(
        type='MobileNetV2',
        width=1.0,
        output_stride=16,
        taps=('stage7',),
        norm_momentum=0.01,
        pretrained='torchvision',
    ),
    head=dict(type='DeepLabV3Head', dropout=0.1, norm_momentum=0.05),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        type='VOCSegmentation',
        split='train',
        augment=[
            dict(type='RandomScaleCrop', scale=(0.5, 1.25), size=321),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ColorJitter', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(type='VOCSegmentation', split='val', augment=[dict(type='ResizePad', size=513)]),
)

train_cfg = dict(max_epochs=24)
min_steps = 400  # as deeplabv3_folder.py
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.3))
    ),
)
schedule = dict(warmup=1 / 24, warmup_from=0.1, decay='cosine', lowest=1e-6)
