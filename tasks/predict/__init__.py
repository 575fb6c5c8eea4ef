"""From pictures, videos and cameras to annotated ones and lists of what was found."""

from tasks.predict.files import Predicted, predict_files
from tasks.predict.names import extra_names, output_names

__all__ = ['Predicted', 'extra_names', 'output_names', 'predict_files']
