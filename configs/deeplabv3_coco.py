"""DeepLabv3 on COCO's objects of VOC's 20 kinds: the first of the paper's two stages.

Paper      arXiv 1801.04381, section 6.3 ("pretrained on COCO"); images and kinds as in arXiv 1706.05587,
           section 4.1
Data       data/coco in the official layout: train2017/, val2017/, annotations/instances_{train,val}2017.json
Command    torchrun --nproc_per_node=2 tools/train.py configs/deeplabv3_coco.py --launcher pytorch
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
           then VOC, started the same way: configs/deeplabv3_voc.py with --cfg-options
           load_from=work_dirs/deeplabv3_coco/best.pth optim_wrapper.optimizer.lr=1e-4
Recipe     that of deeplabv3_voc.py over 6 epochs; the authors give none for this stage
Cost       not run by us
Published  nothing of its own; VOC after it 75.32 mIoU
Measured   not measured; training and evaluation were tried on 230 images only
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/coco'

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
        type='CocoAsVOC',
        split='train2017',
        augment=[
            dict(type='RandomScaleCrop', scale=(0.5, 2.0), size=513),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(type='CocoAsVOC', split='val2017', augment=[dict(type='ResizePad', size=513)]),
)

train_cfg = dict(max_epochs=6)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.007, momentum=0.9, weight_decay=4e-5))
schedule = dict(decay='poly', power=0.9)
