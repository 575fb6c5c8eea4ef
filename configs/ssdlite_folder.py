"""Your own pictures with boxes: SSDLite, fine-tuned from ImageNet weights. For 50 to 5,000 pictures.

Data       COCO JSON, VOC XML, YOLO, CSV or LabelMe JSON, as your tool exports them: see docs/own_pictures.md.
           Without a split a fifth is set aside and noted in split.json
Command    python tools/train.py configs/ssdlite_folder.py --data-root my_boxes
           from a file, without a network: --init mobilenet_v2-7ebf99e0.pth; longer: --epochs 200
Recipe     416 px and default boxes from 8 % of the side on, for small objects; stem and stages 1 to 3 stay
           ImageNet's, with their statistics: less to learn, and less to compute; focal loss, which learns
           from every background box, and from pictures without objects; a match at IoU 0.4, so that small
           objects have several default boxes; norm momentum 0.05, weights averaged over some 100 steps
Measured   see docs/detection.md
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/my_boxes'

model = dict(
    backbone=dict(
        type='MobileNetV2',
        width=1.0,
        taps=('stage6_expand', 'last'),
        pretrained='torchvision',
        frozen_stages=3,
        norm_momentum=0.05,
    ),
    head=dict(
        type='SSDLiteHead',
        padding='symmetric',
        extra_channels=(256, 256, 128),
        min_scale=0.08,
        small_first_map=False,
        class_loss='focal',
        match_threshold=0.4,
        norm_momentum=0.05,
    ),
)

train_dataloader = dict(
    batch_size=12,
    num_workers=2,
    dataset=dict(
        type='DetectionFolder',
        augment=[
            dict(type='ZoomOut', max_ratio=2.0, p=0.4),
            dict(type='RandomIoUCrop', min_scale=0.4, p=0.8),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ColorJitter', p=0.5),
            dict(type='Resize', height=416, width=416, interpolation='linear'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=12,
    num_workers=2,
    dataset=dict(
        type='DetectionFolder',
        augment=[dict(type='Resize', height=416, width=416, interpolation='linear')],
    ),
)

train_cfg = dict(max_epochs=75, val_interval=15)
min_steps = 600  # 170 photographs take 1,050; a shorter run says so before it starts
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.3))
    ),
    clip_grad=dict(max_norm=10.0),
)
schedule = dict(warmup=0.05, warmup_from=0.1, decay='cosine', lowest=1e-6)
ema = dict(decay=0.99)
