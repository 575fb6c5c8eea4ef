"""Your own pictures with boxes: a detector of the TensorFlow Object Detection API, trained on.

Data       as configs/ssdlite_folder.py
Weights    as configs/ssdlite_tf_person.py, made a checkpoint that names its classes:
           python tools/convert_weights.py VARIABLES.npz detector.pth --config configs/ssdlite_tf_person.py \
               --classes person
Command    python tools/train.py configs/ssdlite_tf_folder.py --data-root my_boxes --init detector.pth
Recipe     ssdlite_folder.py's, with the detector's own maps, default boxes, padding and resize, and a tenth
           of the learning rate: what it knows is to stay. No mosaics and larger crops, as it loses by them.
           Classes of the same name keep their weights
Measured   see docs/detection.md
"""

_base_ = ['ssdlite_folder.py']

model = dict(
    backbone=dict(taps=('stage6_expand', 'last'), pretrained=None, padding='same', norm_eps=1e-3),
    head=dict(_delete_=True, type='SSDLiteHead', class_loss='focal', match_threshold=0.4, norm_momentum=0.05),
    normalise='tensorflow',
)

train_dataloader = dict(
    dataset=dict(
        augment=[
            dict(type='ZoomOut', max_ratio=2.0, p=0.4),
            dict(type='RandomIoUCrop', min_scale=0.4, p=0.8),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ResizeTensorFlow', height=300, width=300),
            dict(
                type='ColorJitter',
                brightness=(0.7, 1.3),
                contrast=(0.7, 1.3),
                saturation=(0.6, 1.4),
                hue=(-0.05, 0.05),
                p=0.5,
            ),
        ]
    ),
)
val_dataloader = dict(dataset=dict(augment=[dict(type='ResizeTensorFlow', height=300, width=300)]))

train_cfg = dict(max_epochs=10, val_interval=5)
min_steps = 70  # what it knows is kept from the first step on, and lost by long training
optim_wrapper = dict(optimizer=dict(lr=1e-4))
ema = dict(decay=0.99)
