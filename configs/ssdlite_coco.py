"""COCO: SSDLite on MobileNetV2 1.0 at 320 px, section 6.2 and Table 6 of the paper.

Paper      MobileNetV2, arXiv 1801.04381; the recipe is that of the TensorFlow Object Detection API's
           `ssdlite_mobilenet_v2_coco` pipeline
Data       https://cocodataset.org: data/coco/{train2017,val2017}/, data/coco/annotations/instances_*.json
Command    python tools/train.py configs/ssdlite_coco.py
           several GPUs: torchrun --nproc_per_node=4 tools/train.py configs/ssdlite_coco.py --launcher pytorch
           --cfg-options train_dataloader.batch_size=6   (batch 24 in all, which the learning rate is for)
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     ImageNet weights; RMSProp 0.004, momentum 0.9, decay 0.9, epsilon 1.0; weight decay 4e-5; batch 24;
           41 epochs are TensorFlow's 200,000 steps. Its rate hardly falls (0.95 after 800,000 steps); here it
           falls to zero along a cosine. Crops and flips as there; zooming out and colours are SSD's (arXiv
           1512.02325). Norm momentum 0.01 where TensorFlow has 0.0003, so that short runs are scored fairly.
Cost       788.8M multiply-adds an image forward, 4.8 million images
Published  22.1 mAP on test-dev (paper); 22 on val2017 (TensorFlow's model zoo, 300 px)
Measured   trained on a few images only, see docs/detection.md; never on all of COCO
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/coco'

model = dict(
    backbone=dict(
        type='MobileNetV2',
        width=1.0,
        taps=('stage6_expand', 'last'),
        pretrained='torchvision',
        norm_momentum=0.01,
    ),
    head=dict(type='SSDLiteHead', padding='symmetric', norm_momentum=0.01),
)

train_dataloader = dict(
    batch_size=24,
    num_workers=4,
    dataset=dict(
        type='CocoDetection',
        annotations='annotations/instances_train2017.json',
        images='train2017',
        augment=[
            dict(
                type='ColorJitter',
                brightness=(0.875, 1.125),
                contrast=(0.5, 1.5),
                saturation=(0.5, 1.5),
                hue=(-0.05, 0.05),
                p=0.5,
            ),
            dict(type='ZoomOut', max_ratio=4.0, p=0.5),
            dict(type='RandomIoUCrop'),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='Resize', height=320, width=320, interpolation='linear'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=24,
    num_workers=4,
    dataset=dict(
        type='CocoDetection',
        annotations='annotations/instances_val2017.json',
        images='val2017',
        augment=[dict(type='Resize', height=320, width=320, interpolation='linear')],
    ),
)

train_cfg = dict(max_epochs=41)
optim_wrapper = dict(
    optimizer=dict(type='RMSpropTF', lr=0.004, alpha=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
schedule = dict(warmup=1 / 41, warmup_from=0.1, decay='cosine')
