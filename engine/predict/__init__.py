"""From pictures, videos and cameras to annotated ones and lists of what was found."""

from falconet.engine.predict.files import Predicted, predict_files
from falconet.engine.predict.names import extra_names, output_names

__all__ = ['Predicted', 'extra_names', 'output_names', 'predict_files']
