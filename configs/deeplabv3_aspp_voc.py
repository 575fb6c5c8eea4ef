"""PASCAL VOC segmentation: DeepLabv3 on MobileNetV2 with the atrous pyramid (ASPP).

Paper      arXiv 1801.04381, section 6.3 and Table 7; the recipe is that of the authors' `deeplab` code
Data       as in deeplabv3_voc.py
Command    torchrun --nproc_per_node=2 tools/train.py configs/deeplabv3_aspp_voc.py --launcher pytorch
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     that of deeplabv3_voc.py
Cost       4,523,541 parameters, 5.364 billion multiply-adds at 513 x 513. (The paper prints 5.8: TensorFlow 1
           padded a map to a multiple of the rate before each atrous convolution, and that was counted.)
           Not run by us
Published  75.70 mIoU on val, pretrained on COCO; 78.42 at stride 8, several scales and flips
Measured   not measured
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
    head=dict(type='DeepLabV3Head', aspp=True, dropout=0.1, norm_momentum=0.01),
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
