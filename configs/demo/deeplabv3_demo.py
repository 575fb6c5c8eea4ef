"""Segmentation of the generated demo data: from scratch, on a laptop's CPU.

Data       python tools/make_demo_data.py (make demo does it)
Command    python tools/train.py configs/demo/deeplabv3_demo.py
Cost       about two and a half minutes on 2 cores
Measured   see the table in README.md
"""

_base_ = ['../_base_/runtime.py']

data_root = 'data/demo/VOCdevkit'

model = dict(
    backbone=dict(type='MobileNetV2', width=0.5, output_stride=16, taps=('stage7',)),
    head=dict(type='DeepLabV3Head', hidden_channels=128, dropout=0.1),
    normalise='tensorflow',
)

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        type='VOCSegmentation',
        split='train',
        augment=[
            dict(type='RandomScaleCrop', scale=(0.6, 1.3), size=161, fill=(128, 128, 128)),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        type='VOCSegmentation',
        split='val',
        augment=[dict(type='ResizePad', size=(273, 353), fill=(128, 128, 128))],
    ),
)
# What tools/test.py scores, and nothing is picked on.
test_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        type='VOCSegmentation',
        split='test',
        augment=[dict(type='ResizePad', size=(273, 353), fill=(128, 128, 128))],
    ),
)

train_cfg = dict(max_epochs=32, val_interval=32)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
schedule = dict(warmup=3 / 32, warmup_from=0.04, decay='cosine', lowest=1e-5)
