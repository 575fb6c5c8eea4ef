"""INT8 programs: whole numbers of eight bits for weights and maps, ranges measured on pictures.

Only what lies between the first convolution and the last product with weights is quantised; resizing,
normalisation, decoding and suppression stay in float32.
"""
