"""Your own pictures with boxes: SSDLite, fine-tuned from ImageNet weights.

Data       COCO JSON, VOC XML, YOLO, CSV or LabelMe JSON, as your tool exports them: see docs/own_pictures.md.
           Without a split a fifth is set aside and noted in split.json
Command    python tools/train.py configs/ssdlite_folder.py --data-root my_boxes
           from a file, without a network: --init mobilenet_v2-7ebf99e0.pth; longer: --epochs 200
Recipe     AdamW 1e-3, the backbone at 0.3 of it, cosine; norm momentum 0.05, so that the statistics follow in
           a few hundred steps; zooming out up to 2, so that small objects stay visible
Measured   a trial of these choices on 170 COCO photographs (person only, 100 epochs): AP 0.088, AP50 0.267 in
           15 minutes; with 25 epochs AP 0.004. This very file has not been measured
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/my_boxes'

model = dict(
    backbone=dict(
        type='MobileNetV2',
        width=1.0,
        taps=('stage6_expand', 'last'),
        pretrained='torchvision',
        norm_momentum=0.05,
    ),
    head=dict(type='SSDLiteHead', padding='symmetric', norm_momentum=0.05),
)

train_dataloader = dict(
    batch_size=24,
    num_workers=2,
    dataset=dict(
        type='DetectionFolder',
        augment=[
            dict(type='ColorJitter', p=0.5),
            dict(type='ZoomOut', max_ratio=2.0, p=0.5),
            dict(type='RandomIoUCrop'),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='Resize', height=320, width=320, interpolation='linear'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=24,
    num_workers=2,
    dataset=dict(
        type='DetectionFolder',
        augment=[dict(type='Resize', height=320, width=320, interpolation='linear')],
    ),
)

train_cfg = dict(max_epochs=100, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.3))
    ),
    clip_grad=dict(max_norm=10.0),
)
schedule = dict(warmup=0.02, warmup_from=0.1, decay='cosine', lowest=1e-6)
