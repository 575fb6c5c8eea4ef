"""Ablation: a ReLU6 after every projection, instead of a linear bottleneck.

Paper      arXiv 1801.04381, Figure 6a, which compares on ImageNet
Data       python tools/make_demo_data.py (make demo does it)
Command    python tools/train.py configs/ablations/relu_bottleneck.py
Recipe     configs/demo/linear_demo.py in everything else
Cost       about a minute and a half on 2 cores
Measured   see docs/ablations.md
"""

_base_ = ['../_base_/runtime.py']

data_root = 'data/demo/classification'

model = dict(
    backbone=dict(type='MobileNetV2', width=0.5, linear_bottleneck=False),
    head=dict(type='LinearHead', dropout=0.1, label_smoothing=0.1),
    normalise='tensorflow',
)

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='ImageFolder',
        split='train',
        augment=[
            dict(type='RandomResizedCrop', size=(72, 72), scale=(0.6, 1.0), ratio=(0.9, 1.1)),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(
        type='ImageFolder',
        split='val',
        augment=[dict(type='ResizeCenterCrop', resize=72, crop=72)],
    ),
)

train_cfg = dict(max_epochs=10, val_interval=10)
amp = 'off'  # as docs/ablations.md was measured
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
schedule = dict(warmup=0.2, warmup_from=0.04, decay='cosine', lowest=1e-5)
