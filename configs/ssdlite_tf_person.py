"""A person detector out of the TensorFlow Object Detection API: evaluate and use its weights as they are.

Weights    one-class SSDLite-MobileNetV2, 300 px, every variable saved under its name with numpy.savez
Command    python tools/test.py configs/ssdlite_tf_person.py --checkpoint VARIABLES.npz
Data       https://cocodataset.org: data/coco/val2017/*.jpg, data/coco/annotations/instances_val2017.json
Layout     TensorFlow's throughout: "SAME" padding, norm epsilon 1e-3, pixels in [-1, 1], its resize
Measured   see the table in README.md
"""

_base_ = ['_base_/runtime.py']

data_root = 'data/coco'

model = dict(
    backbone=dict(
        type='MobileNetV2', width=1.0, taps=('stage6_expand', 'last'), padding='same', norm_eps=1e-3
    ),
    head=dict(type='SSDLiteHead'),
    normalise='tensorflow',
)

test_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        type='CocoDetection',
        annotations='annotations/instances_val2017.json',
        images='val2017',
        categories=('person',),
        augment=[dict(type='ResizeTensorFlow', height=300, width=300)],
    ),
)
