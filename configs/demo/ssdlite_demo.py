"""The detector on the generated demo data: from scratch, on a laptop's CPU.

Data       python tools/make_demo_data.py (make demo does it)
Command    python tools/train.py configs/demo/ssdlite_demo.py
Cost       about two and a half minutes on 2 cores
Measured   see the table in README.md
"""

_base_ = ['../_base_/runtime.py']

data_root = 'data/demo/coco'

model = dict(
    backbone=dict(type='MobileNetV2', width=0.5, taps=('stage4_expand', 'stage6_expand', 'last')),
    head=dict(
        type='SSDLiteHead',
        padding='symmetric',
        extra_channels=(128,),
        min_scale=0.12,
        max_scale=0.6,
        small_first_map=False,
        norm_momentum=0.1,
    ),
    normalise='tensorflow',
)

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        type='CocoDetection',
        annotations='annotations/instances_train2017.json',
        images='train2017',
        augment=[
            dict(type='RandomIoUCrop', min_scale=0.5),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='Resize', height=192, width=192, interpolation='linear'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='CocoDetection',
        annotations='annotations/instances_val2017.json',
        images='val2017',
        augment=[dict(type='Resize', height=192, width=192, interpolation='linear')],
    ),
)
# What tools/test.py scores, and nothing is picked on.
test_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='CocoDetection',
        annotations='annotations/instances_test2017.json',
        images='test2017',
        augment=[dict(type='Resize', height=192, width=192, interpolation='linear')],
    ),
)

train_cfg = dict(max_epochs=22, val_interval=22)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
schedule = dict(warmup=1 / 11, warmup_from=0.04, decay='cosine', lowest=1e-5)
