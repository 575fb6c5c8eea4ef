"""PASCAL VOC segmentation: DeepLabv3 on MobileNetV2 without the pyramid, the paper's pick for phones.

Paper      arXiv 1801.04381, section 6.3 and Table 7; the recipe is that of the authors' `deeplab` code
Data       data/VOCdevkit/VOC2012 in the official layout. train_aug needs the masks of SBD too, in
           SegmentationClassAug, and their list ImageSets/Segmentation/train_aug.txt (10,582 names); without
           them: --cfg-options train_dataloader.dataset.split=train
Command    torchrun --nproc_per_node=2 tools/train.py configs/deeplabv3_voc.py --launcher pytorch
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
           the paper's starting point, COCO: see docs/segmentation.md
           at stride 8 and several scales: tools/test.py configs/deeplabv3_voc.py --multi-scale
           --checkpoint work_dirs/deeplabv3_voc/best.pth --cfg-options model.backbone.output_stride=8
Recipe     SGD 0.007, momentum 0.9, poly 0.9, weight decay 4e-5, crop 513, batch 16 (2 x 8), 46 epochs (about
           30,000 steps), scale 0.5 to 2, flips. Norm momentum 0.01: TensorFlow's decay of 0.9997 needs the
           whole 30,000 steps to forget its start
Cost       2,113,557 parameters, 2.741 billion multiply-adds at 513 x 513 (the paper prints 2.75). The full
           schedule was not run by us
Published  75.32 mIoU on val, pretrained on COCO; 77.33 at stride 8, several scales and flips
Measured   the full schedule has not been run; 20 epochs on 173 images at batch 8: see README.md
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
    head=dict(type='DeepLabV3Head', aspp=False, dropout=0.1, norm_momentum=0.01),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type='VOCSegmentation',
        split='train_aug',
        augment=[
            dict(type='RandomScaleCrop', scale=(0.5, 2.0), size=513),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(type='VOCSegmentation', split='val', augment=[dict(type='ResizePad', size=513)]),
)

train_cfg = dict(max_epochs=46, val_interval=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.007, momentum=0.9, weight_decay=4e-5))
schedule = dict(decay='poly', power=0.9)
