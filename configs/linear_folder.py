"""Your own pictures with a class each.

Data       my_pictures/<class>/*.jpg, with or without train, val and test above, or a CSV of image,label: see
           docs/own_pictures.md. Without a split a fifth of every class is set aside and noted in split.json
Command    python tools/train.py configs/linear_folder.py --data-root my_pictures
           without a network: --cfg-options model.backbone.pretrained=mobilenet_v2-7ebf99e0.pth
Recipe     that of linear_intel.py at 5e-4, over 10 epochs
Published  nothing: it is your data
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/my_pictures'

model = dict(
    backbone=dict(type='MobileNetV2', width=1.0, pretrained='torchvision'),
    head=dict(type='LinearHead', dropout=0.2, label_smoothing=0.1),
    normalise='imagenet',
)

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='ClassificationFolder',
        augment=[
            dict(type='RandomResizedCrop', size=(224, 224), scale=(0.5, 1.0)),
            dict(type='HorizontalFlip', p=0.5),
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(
        type='ClassificationFolder',
        augment=[dict(type='ResizeCenterCrop', resize=256, crop=224)],
    ),
)

train_cfg = dict(max_epochs=10)
min_steps = 80  # in which Intel's six scenes were learnt at batch 64; a shorter run says so before it starts
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
schedule = dict(warmup=0.1, warmup_from=0.04, decay='cosine', lowest=1e-6)
early_stopping = dict(patience=5)
