"""Twenty COCO images learnt by heart: the check that everything between data and score fits together.

Data       as configs/ssdlite_coco.py
Command    python tools/train.py configs/ssdlite_overfit20.py
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     ImageNet weights, AdamW, no augmentation, scored on the images it learnt from
Measured   see docs/detection.md
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/coco'
_images = dict(
    type='CocoDetection',
    annotations='annotations/instances_train2017.json',
    images='train2017',
    limit=20,
    augment=[dict(type='Resize', height=320, width=320, interpolation='linear')],
)

model = dict(
    backbone=dict(type='MobileNetV2', width=1.0, taps=('stage6_expand', 'last'), pretrained='torchvision'),
    head=dict(type='SSDLiteHead', padding='symmetric', norm_momentum=0.1),
)
train_dataloader = dict(batch_size=10, num_workers=2, dataset=_images)
val_dataloader = dict(batch_size=20, num_workers=0, dataset=_images)

train_cfg = dict(max_epochs=150, val_interval=50)
log_interval = 2
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4, fused=True), clip_grad=dict(max_norm=10.0)
)
schedule = dict(warmup=1 / 30, warmup_from=0.04, decay='cosine', lowest=1e-5)
