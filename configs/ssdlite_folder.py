"""Your own pictures with boxes: SSDLite, fine-tuned from ImageNet weights. For 50 to 5,000 pictures.

Data       COCO JSON, VOC XML, YOLO, CSV or LabelMe JSON, as your tool exports them: see docs/own_pictures.md.
           Without a split a fifth is set aside and noted in split.json
Command    python tools/train.py configs/ssdlite_folder.py --data-root my_boxes
           from a file, without a network: --init mobilenet_v2-7ebf99e0.pth; longer: --epochs 200
Recipe     416 px, and a top-down path over maps of strides 8 to 128: small objects, from 5 % of the side on,
           are found on fine maps that know what coarse ones saw. Half of the samples are mosaics of four
           pictures, all are cropped at random. Stem and stages 1 to 3 stay ImageNet's, with their statistics:
           less to learn, and less to compute. Focal loss learns from every background box, and from pictures
           without objects; at IoU 0.4 a small object has several default boxes; norm momentum 0.05; weights
           averaged over some 200 steps
Measured   see docs/detection.md
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/my_boxes'

model = dict(
    backbone=dict(
        type='MobileNetV2',
        width=1.0,
        taps=('stage4_expand', 'stage6_expand', 'last'),
        pretrained='torchvision',
        frozen_stages=3,
        norm_momentum=0.05,
    ),
    head=dict(
        type='SSDLiteHead',
        padding='symmetric',
        extra_channels=(256, 128),
        pyramid_channels=96,
        min_scale=0.05,
        max_scale=0.8,
        scale_spacing='geometric',
        small_first_map=False,
        class_loss='focal',
        match_threshold=0.4,
        nms_threshold=0.5,
        norm_momentum=0.05,
    ),
)

train_dataloader = dict(
    batch_size=12,
    num_workers=2,
    dataset=dict(
        type='DetectionFolder',
        augment=[
            dict(type='Mosaic', height=832, width=832, p=0.5),
            dict(type='ZoomOut', max_ratio=2.0, p=0.2),
            dict(type='RandomIoUCrop', min_scale=0.3),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='Resize', height=416, width=416, interpolation='linear'),
            dict(
                type='ColorJitter',
                brightness=(0.7, 1.3),
                contrast=(0.7, 1.3),
                saturation=(0.6, 1.4),
                hue=(-0.05, 0.05),
                p=0.7,
            ),
            dict(type='ToGray', p=0.05),
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

train_cfg = dict(max_epochs=80, val_interval=20)
min_steps = 600  # 170 photographs take 1,120; a shorter run says so before it starts
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.3))
    ),
    clip_grad=dict(max_norm=10.0),
)
schedule = dict(warmup=0.05, warmup_from=0.1, decay='cosine', lowest=1e-6)
ema = dict(decay=0.995)
