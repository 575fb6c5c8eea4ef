"""Your own pictures with masks: DeepLabv3 without the pyramid, fine-tuned from ImageNet weights.

Data       masks (class indices, or colours with a list), COCO's or YOLO's outlines, or LabelMe's, as your
           tool exports them: see docs/own_pictures.md. Without a split a fifth is set aside, see split.json
Command    python tools/train.py configs/deeplabv3_folder.py --data-root my_data
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     for a few hundred pictures: AdamW 1e-3, the backbone at 0.3 of it, cosine, crop 321, scale 0.5 to
           1.25, flips, colours, 24 epochs. On 173 images of PASCAL VOC it gave 0.53 IoU for cat and 0.52 for
           dog on 75 others (50 training images each), and 0.215 mIoU over all 19 classes, of which most have
           3 to 7 training images
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/my_data'

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
        type='SegmentationFolder',
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
    dataset=dict(type='SegmentationFolder', augment=[dict(type='ResizePad', size=513)]),
)

train_cfg = dict(max_epochs=24)
min_steps = 400  # the 173 images of VOC take 528; a shorter run says so before it starts
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.3))
    ),
)
schedule = dict(warmup=1 / 24, warmup_from=0.1, decay='cosine', lowest=1e-6)
